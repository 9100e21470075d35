"""`Memory` over HTTP: the verbs, streams in and out, tokens, limits, metrics."""

"""OpenTelemetry, when the user asks for it: a span for each request, sent where the usual OTEL_ variables say."""

from __future__ import annotations

import os
from typing import Any

from loci.core.errors import need

_WHO = "loci serve --otel"


def tracer() -> Any:
    """A tracer for the server. OTEL_TRACES_EXPORTER=console prints spans; otherwise they go to an OTLP endpoint."""
    trace = need("opentelemetry.sdk.trace", extra="otel", who=_WHO)
    export = need("opentelemetry.sdk.trace.export", extra="otel", who=_WHO)
    resources = need("opentelemetry.sdk.resources", extra="otel", who=_WHO)
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        exporter = export.ConsoleSpanExporter()
    else:
        exporter = need(
            "opentelemetry.exporter.otlp.proto.http.trace_exporter", extra="otel", who=_WHO
        ).OTLPSpanExporter()
    provider = trace.TracerProvider(resource=resources.Resource.create({"service.name": "loci"}))
    provider.add_span_processor(export.BatchSpanProcessor(exporter))
    return provider.get_tracer("loci")

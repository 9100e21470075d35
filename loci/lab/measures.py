"""What several claims measure."""

from __future__ import annotations

from loci.lab import data
from loci.lab.claim import Evidence, NotTestable
from loci.lab.recall import measure
from loci.records import Memory, Scheme


def recall(name: str, scheme: str | Scheme, *, embedder: str = "none") -> Evidence:
    """R@5 (%) of a scheme on a set; NotTestable when the set is absent."""
    folder = data.folder(name)
    if not folder.is_dir():
        raise NotTestable(f"{folder} is absent; set LOCI_DATA to a folder that holds it")
    with Memory(":memory:", scheme=scheme, embedder=embedder, log_queries=False) as memory:
        figures = measure(memory, data.books(folder), dataset=name, embedder=embedder)
    return Evidence(figures["r@5"], f"R@5 (%) on {name}", figures["bytes"])


def locomo(scheme: str | Scheme) -> Evidence:
    """R@5 (%) on the conversations of LoCoMo that are at hand, categories 1 to 4."""
    return recall("locomo", scheme)

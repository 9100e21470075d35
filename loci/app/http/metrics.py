"""Figures for Prometheus: how many requests, how long, what was added, recalled and not known. No scope and no text in any label."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from loci.records import Hits

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The figures of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        where: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("loci_requests", "Requests answered.", ["route", "status"], **where)
        self.seconds = Histogram("loci_request_seconds", "Seconds of a request.", ["route"], buckets=_SECONDS, **where)
        self.running = Gauge("loci_requests_running", "Requests being answered.", **where)
        self.added = Counter("loci_items_added", "Items added.", **where)
        self.recalls = Counter("loci_recalls", "Recalls answered.", **where)
        self.abstained = Counter("loci_abstentions", "Recalls whose answer is probably not in memory.", **where)

    def told(self, verb: str, result: Any) -> None:
        """Count what a verb gave."""
        if verb == "add":
            self.added.inc(len(result))
        elif isinstance(result, Hits):
            self.recalls.inc()
            self.abstained.inc(result.abstain)

    def text(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)

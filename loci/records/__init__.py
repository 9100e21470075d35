"""Records: memory outside the model. One file, scoped, bitemporal, explained."""

from loci.records.forget import Receipt
from loci.records.history import Diff, Event
from loci.records.item import Hit, Hits, Ids, Item, Link
from loci.records.jobs import Job
from loci.records.memory import Memory
from loci.records.scheme import Changes, New, Plain, Query, Scheme
from loci.records.view import View

__all__ = [
    "Changes", "Diff", "Event", "Hit", "Hits", "Ids", "Item", "Job", "Link", "Memory", "New", "Plain", "Query",
    "Receipt", "Scheme", "View",
]  # fmt: skip

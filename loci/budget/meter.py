"""The byte meter: which bytes are alive at every moment of a run, and for what. Exact on real and on fake tensors.

Every operation passes the meter below autograd; each new storage is entered with its size, and again when it is freed.
What a kernel allocates inside and frees before it returns is not seen. On fake tensors nothing is computed or
allocated, so a step of a model that fits on no machine at hand is metered on a laptop.

Keeps: nothing of the run; one entry of 24 bytes for each storage's birth and death.

>>> with ByteMeter() as meter:
...     x = torch.ones(1000)
...     y = (x * 2 + 1).sum()
>>> meter.timeline().peak().bytes  # x, x * 2 and x * 2 + 1
12000
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from loci.budget.timeline import KINDS, Kind, Timeline
from loci.core.card import method
from loci.core.errors import OverBudget
from loci.core.meter import Reading
from loci.core.sizes import show


@method(
    name="bytes",
    kind="meter",
    title="Live bytes of every storage, by what it is for",
    says="reads the peak of the bytes that a run holds at once, on real or on fake tensors",
    bytes="24*e",
    example={},
    needs=("torch",),
    deviates={"nested_readings_are_their_own": "what runs inside is part of the run around it, and so are its bytes"},
)
class ByteMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered. `hold` enters what was there before, `mark` says what a storage turned out to be for.

    `live` is what is alive now, `high` its largest value since `high` was last set. With a `limit`, the operation that takes the live bytes above it raises `OverBudget`. `count` is what a storage of n
    bytes costs, where an allocator rounds up.
    """

    def __init__(self, *, limit: int | None = None, count: Callable[[int], int] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit, self.live, self.high, self.flops = limit, 0, 0, 0
        self._count = count or (lambda size: size)
        self._phase = "forward"
        self._known: dict[int, int] = {}  # storage -> its number, while it lives
        self._watch: dict[int, weakref.ref[Any]] = {}
        self._kinds: list[Kind] = []
        self._sizes: list[int] = []
        self._born: list[str] = []
        self._events: list[tuple[int, int, str]] = []  # number of the storage, +1 or -1, phase

    def hold(self, kind: Kind, tensors: Iterable[Any]) -> None:
        """Enter tensors that were made outside of the meter."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                self._enter(tensor, kind)

    def mark(self, kind: Kind, tensors: Iterable[Any]) -> None:
        """Say what tensors are for; parameters stay parameters."""
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                number = self._known.get(_key(tensor))
                if number is not None and self._kinds[number] != "parameters":
                    self._kinds[number] = kind

    def pass_by(self, size: int) -> None:
        """Enter bytes that an operation held inside and gave back before it returned."""
        number, size = len(self._sizes), self._count(size)
        self._kinds.append("temporaries")
        self._sizes.append(size)
        self._born.append(self._phase)
        self._events += [(number, 1, self._phase), (number, -1, self._phase)]
        self.high = max(self.high, self.live + size)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name a part of the run: forward, backward, step."""
        before, self._phase = self._phase, name
        try:
            yield
        finally:
            self._phase = before

    def __len__(self) -> int:
        return len(self._events)

    def timeline(self) -> Timeline:
        """What has been counted so far."""
        return Timeline.of(
            [sign * self._sizes[number] for number, sign, _ in self._events],
            [KINDS.index(self._kinds[number]) for number, _, _ in self._events],
            [phase for _, _, phase in self._events],
        )

    def split(self) -> dict[Kind, int]:
        """The bytes alive now, by what they are for."""
        now = dict.fromkeys(KINDS, 0)
        for number in self._known.values():
            now[self._kinds[number]] += self._sizes[number]
        return now

    def read(self, *subject: Any) -> Reading:
        """The peak of the bytes that calling `subject` holds at once, beyond what was there before."""
        (run,) = subject
        with type(self)(limit=self.limit, count=self._count) as meter:
            run()
        return Reading(float(meter.timeline().peak().bytes), "bytes", "measured")

    def draw(self, seed: int) -> tuple[Any, ...]:
        """A small product to measure."""
        x = torch.randn(16, 16 + seed % 16, generator=torch.Generator().manual_seed(seed))
        return (lambda: x.T @ x + 1,)

    def shapes(self) -> dict[str, float]:
        """What the card's formula asks for: births and deaths entered so far."""
        return {"e": len(self)}

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and enter what it made."""
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                made = torch.is_grad_enabled() and self._phase in {"forward", "backward"}
                self._enter(tensor, "activations" if made else "temporaries")
        return out

    def _enter(self, tensor: Tensor, kind: Kind) -> None:
        key = _key(tensor)
        if key in self._known:
            return
        storage = tensor.untyped_storage()
        number, size = len(self._sizes), self._count(storage.nbytes())
        self._known[key] = number
        self._watch[key] = weakref.ref(storage, lambda _: self._leave(key))
        self._kinds.append(kind)
        self._sizes.append(size)
        self._born.append(self._phase)
        self._events.append((number, 1, self._phase))
        self.live += size
        self.high = max(self.high, self.live)
        if self.limit is not None and self.live > self.limit:
            raise OverBudget(
                f"{show(self.live)} are alive in {self._phase}, the budget is {show(self.limit)}; "
                + ", ".join(f"{of} {show(size)}" for of, size in self.split().items() if size)
            )

    def _leave(self, key: int) -> None:
        number = self._known.pop(key)
        del self._watch[key]
        if self._kinds[number] == "activations" and self._born[number] == self._phase == "forward":
            self._kinds[number] = "temporaries"  # it did not outlive the forward pass, so it was not saved for backward
        self._events.append((number, -1, self._phase))
        self.live -= self._sizes[number]


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)

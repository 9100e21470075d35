"""Checks as data: one function per law, run over every member of a kind.

A law is a function `law(make) -> None` that raises AssertionError when it does not hold; `make()` builds a fresh
instance from the member's card. A member that cannot keep a law says so on its card (`deviates`), and the law
must then fail: a deviation that starts to hold is an error too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loci.core.card import Card, members

Make = Callable[[], Any]
Law = Callable[[Make], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One member under one law."""

    card: Card
    member: Any
    law: Law

    @property
    def id(self) -> str:
        """The case's name in a test report."""
        return f"{self.card.name}-{self.law.__name__}"

    def run(self) -> None:
        """Run the law; a stated deviation must fail."""
        reason = self.card.deviates.get(self.law.__name__)
        try:
            self.law(lambda: self.member(**self.card.example))
        except AssertionError as error:
            if reason is None:
                raise AssertionError(
                    f"{self.card.kind} {self.card.name!r} breaks {self.law.__name__}: {error}"
                ) from error
            return
        if reason is not None:
            raise AssertionError(
                f"{self.card.name!r} keeps {self.law.__name__}, but its card says it deviates ({reason}); remove that"
            )


def cases(kind: str, laws: Sequence[Law]) -> Iterator[Case]:
    """Every member of a kind under every law."""
    for card, member in members(kind):
        for law in laws:
            yield Case(card, member, law)


def broken_by(law: Law, make: Make) -> bool:
    """Whether a twin breaks a law: what the controls assert."""
    try:
        law(make)
    except AssertionError:
        return True
    return False


def refused(call: Callable[[], object], *words: str, kind: type[Exception] = ValueError) -> None:
    """Assert that a call raises an error of that kind which says the words.

    >>> refused(lambda: int("kitten"), "kitten")
    """
    try:
        call()
    except kind as error:
        absent = [word for word in words if word not in str(error)]
        assert not absent, f"the error {str(error)!r} does not say {absent}"  # noqa: PT017
        return
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} was raised, not {kind.__name__}: {error}") from error
    raise AssertionError(f"nothing was raised where a {kind.__name__} with {words} is due")

"""Games of memory with a deck of cards that are shown one by one: which was first, which a while ago, which were all?

    RepeatFirst      the suit of the first card, at every moment
    RepeatPrevious   the suit of the card k - 1 moments ago, once there is one
    Autoencode       the suits of all cards, in reverse order, once all were shown
    HigherLower      whether the next card's rank will be higher (0) or lower (1) than this one's; alike pays nothing

Decks have 52 cards of 4 suits and 13 ranks and are dealt without replacement. An episode's rewards sum to 1 where all
answers are right and to -1 where all are wrong; in HigherLower, where the future can only be guessed at, they stay within.

Source: Morad et al., "POPGym: Benchmarking Partially Observable Reinforcement Learning", arXiv:2303.01859, and its code.
Differs: what is seen is one-hot, and Autoencode shows no suit while it asks, where the code shows always the same one; the
last card of a deck, which the code shows when nothing can be done any more, is not seen. A card of k = 1 is the present one,
as in their code and not as in its comment.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from loci.lab.tasks.environment import Quiz
from loci.lab.tasks.mqar import NOTHING

SUITS, RANKS = 4, 13


class CardGame(Quiz):
    """Episodes are `decks` decks shuffled together."""

    def __init__(self, *, decks: int = 1) -> None:
        if decks < 1:
            raise ValueError(f"decks={decks} have no cards; choose at least 1")
        self.cards = self.draws = SUITS * RANKS * decks


class RepeatFirst(CardGame):
    """Which suit had the first card?"""

    D = actions = SUITS

    def __init__(self, *, decks: int = 1) -> None:
        super().__init__(decks=decks)
        self.L = self.cards - 1
        self.worth = 1 / self.L

    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot suits (E, L, 4), and the first one (E, L)."""
        suits = suits_of(drawn)[:, :-1]
        return functional.one_hot(suits, SUITS).float(), suits[:, :1].expand(-1, self.L).clone()


class RepeatPrevious(CardGame):
    """Which suit had the k-th card, counted back from the present one?"""

    D = actions = SUITS

    def __init__(self, k: int = 4, *, decks: int = 1) -> None:
        super().__init__(decks=decks)
        if not 1 <= k < self.cards:
            raise ValueError(f"k={k} is no card of {self.cards}; choose 1 to {self.cards - 1}")
        self.k, self.L = k, self.cards - 1
        self.worth = 1 / (self.cards - k)

    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot suits (E, L, 4), and those of k - 1 moments before (E, L)."""
        suits = suits_of(drawn)[:, :-1]
        due = functional.pad(suits, (self.k - 1, 0), value=NOTHING)[:, : self.L]
        return functional.one_hot(suits, SUITS).float(), due


class Autoencode(CardGame):
    """Which suits were there, the last one first? Seen are the suit and, as a fifth number, whether an answer is due."""

    D, actions = SUITS + 1, SUITS

    def __init__(self, *, decks: int = 1) -> None:
        super().__init__(decks=decks)
        self.L = 2 * self.cards - 1
        self.worth = 1 / self.cards

    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """All cards, then as many answers; the first is due while the last card is seen."""
        suits = suits_of(drawn)
        shown = functional.pad(functional.one_hot(suits, SUITS).float(), (0, 1, 0, self.cards - 1))
        shown[:, self.cards - 1 :, SUITS] = 1
        return shown, functional.pad(suits.flip(1), (self.cards - 1, 0), value=NOTHING)


class HigherLower(CardGame):
    """Will the next card's rank be higher (0) or lower (1)? Who counts what is gone guesses better."""

    D, actions = RANKS, 2

    def __init__(self, *, decks: int = 1) -> None:
        super().__init__(decks=decks)
        self.L = self.cards - 1
        self.worth = 1 / self.cards

    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """One-hot ranks (E, L, 13), and what the next card decides."""
        ranks = shuffled(drawn) // SUITS % RANKS
        now, after = ranks[:, :-1], ranks[:, 1:]
        return functional.one_hot(now, RANKS).float(), (after < now).long().masked_fill(after == now, NOTHING)


def shuffled(drawn: Tensor) -> Tensor:
    """Numbers (E, cards) in [0, 1) -> the numbers of the cards in random order."""
    return drawn.argsort(1)


def suits_of(drawn: Tensor) -> Tensor:
    """(E, cards) -> suits of the shuffled cards; a quarter of each."""
    return shuffled(drawn) % SUITS

"""Fill in the middle: spans of a text are taken out, marked where they were, and told behind it, with their places.

    a b c d e f g   ->   a [1] d e [2] g  eos  [1] b c  [2] f
    0 1 2 3 4 5 6        0  1  3 4  5  6   0    1  1 2   5  5

So a model that only reads forward learns to fill gaps: it knows what stands on both sides, and where. How many spans
there are is Poisson with mean 1, given that it is no more than there are masks; they start anywhere but at the first
token; one is of 1 to 0.2 L - 1 tokens, each length as likely, L the way to the next span or the end, and of 1 token
where that is less.

Paper: Sgarbossa, Malbranke, Bitbol, "ProtMamba", bioRxiv 2024.05.24.595730, and Schmidinger et al., "Bio-xLSTM",
arXiv:2411.04165, as in the latter's code (MultipleSpanFIM), whose bounds are those above.
Differs: a text too short for the spans that were drawn takes fewer; theirs fails.

>>> text = torch.arange(10, 17)
>>> tokens, places = moved(text, [(1, 3), (5, 6)], eos=2, masks=(33, 34))
>>> tokens
tensor([10, 33, 13, 14, 34, 16,  2, 33, 11, 12, 34, 15])
>>> places
tensor([0, 1, 3, 4, 5, 6, 0, 1, 1, 2, 5, 5])
>>> restored(tokens, eos=2, masks=(33, 34)).equal(text)
True
>>> drawn_spans(100, torch.Generator().manual_seed(8), most=5)
[(41, 43), (78, 79)]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Moved(NamedTuple):
    """A text with its spans behind it, and the place of each token in the text as it was."""

    tokens: Tensor  # (N',)
    places: Tensor  # (N',); a mask's is that of its span's first token, eos's is nought


def drawn_spans(N: int, random: torch.Generator, *, most: int, share: float = 0.2) -> list[tuple[int, int]]:
    """Starts and ends of the spans to take out of N tokens, in order and apart from each other."""
    if N < 0 or most < 0 or not 0 < share <= 1:
        raise ValueError(
            f"N={N}, most={most}, share={share} is nothing to draw from; N and most are no less than 0, 0 < share <= 1"
        )
    weights = torch.tensor([1 / math.factorial(n) for n in range(min(most, max(N - 1, 0)) + 1)], dtype=torch.float64)
    count = int(torch.multinomial(weights, 1, generator=random))
    starts = sorted((1 + torch.randperm(max(N - 1, 0), generator=random)[:count]).tolist())
    spans = []
    for start, following in zip(starts, [*starts[1:], N], strict=False):
        longest = max(int((following - start) * share) - 1, 1)
        spans.append((start, start + int(torch.randint(1, longest + 1, (), generator=random))))
    return spans


def moved(tokens: Tensor, spans: Sequence[tuple[int, int]], *, eos: int, masks: Sequence[int]) -> Moved:
    """Tokens (N,) with the spans behind an eos, the k-th after the k-th mask; without spans they are as they were."""
    text = _ids(tokens)
    bounds = [0, *(bound for span in spans for bound in span), len(text)]
    if len(spans) > len(masks) or bounds != sorted(bounds) or any(start == end for start, end in spans):
        raise ValueError(
            f"spans={list(spans)} of {len(text)} tokens; give at most {len(masks)} (start, end), in order, none of them empty"
        )
    if eos in text or any(mask in text for mask in masks):
        raise ValueError(f"the text holds eos={eos} or one of masks={list(masks)}; they are for what is moved alone")
    if not spans:
        return Moved(tokens, torch.arange(len(text), device=tokens.device))
    kept: list[int] = []
    places: list[int] = []
    behind, behind_places, read = [eos], [0], 0
    for mask, (start, end) in zip(masks, spans, strict=False):
        kept += [*text[read:start], mask]
        places += range(read, start + 1)  # the mask is where its span begins
        behind += [mask, *text[start:end]]
        behind_places += [start, *range(start, end)]
        read = end
    kept, places = kept + text[read:], [*places, *range(read, len(text))]
    return Moved(tokens.new_tensor(kept + behind), tokens.new_tensor(places + behind_places))


def restored(tokens: Tensor, *, eos: int, masks: Sequence[int]) -> Tensor:
    """The text (N,) that `moved` took apart, or one whose gaps a model filled: its spans may come in any order."""
    ids = _ids(tokens)
    cut = ids.index(eos) if eos in ids else len(ids)
    gaps = [token for token in ids[:cut] if token in masks]
    told = [token for token in ids[cut + 1 :] if token in masks]
    if sorted(gaps) != sorted(told) or len(set(told)) < len(told) or ids[cut + 1 : cut + 2] != told[:1]:
        raise ValueError(
            f"the text has the gaps {gaps} and behind eos={eos} the spans {told}; a span begins with its mask, one for each gap"
        )
    spans: dict[int, list[int]] = {}
    for token in ids[cut + 1 :]:
        if token in masks:
            span = spans[token] = []
        else:
            span.append(token)
    return tokens.new_tensor([part for token in ids[:cut] for part in spans.get(token, [token])])


def _ids(tokens: Tensor) -> list[int]:
    if tokens.dim() != 1 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens is {tuple(tokens.shape)} of {tokens.dtype}; give one text (N,) of int64")
    ids: list[int] = tokens.tolist()
    return ids

"""JRT-RNN: a language model that reads its prompt knowing all of it, and goes on from there in constant memory.

    h^0 = E[token],   h' = h + mixer(norm h),   h <- h' + W_2 (silu(W_g norm h') * W_1 norm h'),   logits = E norm(h^L)

Mixers come in a cycle, as in Based: gated short convolutions, prefix linear attention (PLA, `jrt_rnn.py`) in every fifth
layer, and after it attention over a short window. `prefill` reads a prompt: PLA without a causal mask, the rest causally.
From the state it leaves one reads on with `read` and `generate` as from any other. Inside the prompt a logit knows the token
that follows and is trained to fill in a masked one (`learn`), so what says the answer's first token is read after the prompt:
prefill all but the last token, then generate from that one. `whole` is both parts at once.

Rows of a prompt may end at lengths of their own. Causal layers are then scanned once, with rows turned so that they end
together and memory begun afresh where each of them begins.

Paper: Arora et al., "Just read twice: closing the recall gap for recurrent language models", arXiv:2407.05483; the pattern of
layers after Arora et al. (Based), arXiv:2402.18668.
Differs: prompts of any length, where theirs are padded on the left to M; an answer starts from a token read causally, theirs
from the last logits of the prompt, which their training does not ask for the token that follows; keys are turned pair by pair,
(0, 1), (2, 3), theirs (0, K/2), (1, K/2 + 1); torch's initial weights but for the embedding. See also `jrt_rnn.py`, `short_conv.py`, `attention.py` and `jrt_loss.py`.
Keeps: B*(s*C*(W - 1)*E*D/2 + s*P*(1 + f + f*f)*(D + H) + A*(2*b*(R - 1)*D + 8)) bytes, whatever was read: C convolutions of
width W and expansion E, P layers of PLA with H heads of f features, A of attention over R moments; b bytes of a number, s of
one that is summed (4, or 8 in float64).

Shapes: B batch, M moments of a prompt, N of a text, V tokens, D width.

>>> model = JRTRNN(11, D=8, depth=5, heads=2, feature=3, window=4)
>>> prompt = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, -1, -1, -1]])
>>> logits, state = model.prefill(prompt, lengths=torch.tensor([6, 3]))
>>> said, state = model.generate(torch.tensor([[2], [7]]), 4, state=state)
>>> logits.shape, said.shape
(torch.Size([2, 6, 11]), torch.Size([2, 4]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from loci.core.card import method
from loci.state.attention import Attention
from loci.state.jrt_loss import masked, mixed_loss
from loci.state.jrt_rnn import JRT
from loci.state.mixer import Mixer, State, choose
from loci.state.short_conv import BaseConv
from loci.state.stack import Stack

KINDS: Mapping[str, type[Mixer]] = {"conv": BaseConv, "pla": JRT, "attention": Attention}
CYCLE = ("conv", "pla", "attention", "conv", "conv")


class SwiGLU(nn.Module):
    """The map of each moment alone, (..., D) -> (..., D)."""

    def __init__(self, D: int, hidden: int) -> None:
        super().__init__()
        self.inward, self.out = nn.Linear(D, 2 * hidden, bias=False), nn.Linear(hidden, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """W_1 and W_g are the halves of `inward`."""
        value, gate = self.inward(x).chunk(2, -1)
        out: Tensor = self.out(value * silu(gate))
        return out


@method(
    name="jrt-rnn",
    kind="decoder",
    title="Just read twice: closing the recall gap for recurrent language models",
    paper="arXiv:2407.05483",
    says="a language model that reads its prompt both ways, then speaks from a state of constant size",
    bytes="B*(s*C*(W - 1)*E*D//2 + s*P*(1 + f + f*f)*(D + H) + A*(2*b*(R - 1)*D + 8))",
    example={"V": 11, "D": 8, "depth": 3, "heads": 2, "feature": 3, "window": 4},
    needs=("torch",),
    deviates={
        "gradient_reaches_every_parameter": "k_e and v_e read the prompt, which only prefill sees; reading on is the decoder"
    },
    system="jrt",
)
class JRTRNN(Stack):
    """`depth` blocks whose mixers are named by `cycle`, again and again; as given, the paper's 360M parameters."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 1024,
        depth: int = 26,
        cycle: Sequence[str] = CYCLE,
        heads: int = 16,
        feature: int = 16,  # numbers of a key of PLA
        chunk: int = 64,  # moments that PLA scans at once
        window: int = 256,  # of attention
        width: int = 3,  # of the convolutions
        expand: int = 4,
        hidden: int | None = None,  # of a block's map; 2*D unless given
        tied: bool = True,  # the head's weight is the embedding's
    ) -> None:
        hidden = 2 * D if hidden is None else hidden
        named = [cycle[place % len(cycle)] for place in range(depth)] if cycle else []
        if hidden < 1 or "pla" not in named or not KINDS.keys() >= set(named):
            raise ValueError(
                f"cycle={tuple(cycle)}, depth={depth}, hidden={hidden} is no model; choose layers out of {', '.join(KINDS)}, "
                "at least one of them pla, and a map of at least 1"
            )
        options: Mapping[str, Mapping[str, int]] = {
            "conv": {"expand": expand, "width": width},
            "pla": {"heads": heads, "feature": feature, "chunk": chunk},
            "attention": {"heads": heads, "window": window},
        }
        names = iter(named)
        super().__init__(lambda D: _made(next(names), D, options), depth=depth, V=V, D=D, hidden=hidden)
        if not tied:
            self.head.weight = nn.Parameter(torch.empty_like(self.embedding.weight))
            nn.init.normal_(self.head.weight, std=0.02)
        self.named, self.options = named, options

    @staticmethod
    def mlp(D: int, hidden: int) -> nn.Module:
        """A gated map of each moment alone."""
        return SwiGLU(D, hidden)

    def shapes(self, state: State) -> Mapping[str, float]:
        """Layers and sizes as under `Keeps`."""
        weight = self.embedding.weight
        s = torch.promote_types(weight.dtype, torch.float32).itemsize
        conv, pla, attention = (self.options[kind] for kind in KINDS)
        C, P, A = (self.named.count(kind) for kind in KINDS)
        sizes = {
            "W": conv["width"],
            "E": conv["expand"],
            "H": pla["heads"],
            "f": pla["feature"],
            "R": attention["window"],
        }
        return {"B": len(state[0]), "D": weight.shape[1], "C": C, "P": P, "A": A, "b": weight.itemsize, "s": s, **sizes}

    def prefill(self, tokens: Tensor, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A prompt (B, M) and its rows' lengths (B,), M each if not given -> logits (B, M, V) and the state to go on from.

        From a row's length on, tokens may be anything; logits are zeros there, and nothing of it is in the state. ValueError
        for lengths that do not fit, and as for `read`.
        """
        heard = None
        if lengths is not None and tokens.dim() == 2:
            lengths = lengths.to(tokens.device)
            heard = _within(tokens, lengths)
            tokens = torch.where(heard, tokens, 0)
        state = self.initial_state(len(tokens))
        self.require(tokens, state)
        if not tokens.shape[1]:
            return self.nothing(tokens), state
        x: Tensor = self.embedding(tokens)
        after: list[Tensor] = []
        for block in self.blocks:
            said, own = prompted(block.mixer, block.norm1(x).to(x.dtype), lengths)  # type: ignore[arg-type, operator]
            x = x + said
            x = x + block.mlp(block.norm2(x).to(x.dtype))  # type: ignore[operator]
            after.extend(own)
        logits: Tensor = self.head(self.norm(x).to(x.dtype))
        return (logits if heard is None else torch.where(heard.unsqueeze(-1), logits, 0)), tuple(after)

    def whole(self, tokens: Tensor, *, prefix: int) -> tuple[Tensor, State]:
        """A text (B, N), the first `prefix` tokens of it the prompt -> logits (B, N, V) and the state after it."""
        if tokens.dim() == 2 and not 0 <= prefix <= tokens.shape[1]:
            raise ValueError(f"prefix={prefix} does not fit {tokens.shape[1]} tokens; give 0 to {tokens.shape[1]}")
        self.require(tokens, self.initial_state(len(tokens)))
        known, state = self.prefill(tokens[:, :prefix])
        said, state = self(tokens[:, prefix:], state)
        return torch.cat([known, said], 1), state

    def learn(
        self,
        tokens: Tensor,
        *,
        prefix: int,
        mask: int,  # the token that stands for a masked one
        random: torch.Generator,
        share: float = 0.15,  # of the prompt that is masked
        weight: float = 0.25,  # of filling it in
    ) -> Tensor:
        """The loss of a text (B, N), nats: to fill in what is masked in the prompt, and to go on after it (`jrt_loss`)."""
        self.require(tokens, self.initial_state(len(tokens)))
        shown, hidden = masked(tokens[:, :prefix], mask=mask, random=random, share=share)
        logits, _ = self.whole(torch.cat([shown, tokens[:, prefix:-1]], 1), prefix=prefix)
        return mixed_loss(logits, torch.cat([hidden, tokens[:, prefix + 1 :]], 1), prefix=prefix, weight=weight)


def prompted(mixer: Mixer, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, State]:
    """A layer over a prompt (B, M, D): PLA knows all of it, other layers are causal."""
    if isinstance(mixer, JRT):
        return mixer.prefill(x, lengths=lengths)
    start = mixer.initial_state(len(x))
    return mixer.scan(x, start) if lengths is None else scan_to_lengths(mixer, x, start, lengths)


def scan_to_lengths(mixer: Mixer, x: Tensor, start: State, lengths: Tensor) -> tuple[Tensor, State]:
    """Any mixer over rows (B, M, D) that end at their lengths (B,): outputs (B, M, D), and each row's state at its end.

    `start` is the initial state. What is said from a row's length on is not to be looked at.
    """
    M, ends = x.shape[1], lengths.unsqueeze(1)
    place = torch.arange(M, device=x.device)
    y, last = mixer.scan_with_resets(_rows(x, (place + ends) % M), start, place == M - ends)
    return _rows(y, (place - ends) % M), choose(lengths == 0, start, last)


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Moments (B, M, D) in the order of the places (B, M)."""
    return x.gather(1, places.unsqueeze(-1).expand_as(x))


def _within(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Which tokens (B, M) are before their rows' lengths (B,)."""
    whole = not lengths.is_floating_point() and lengths.dtype != torch.bool  # bools would be a mask
    if tuple(lengths.shape) != (len(tokens),) or not whole:
        raise ValueError(
            f"lengths is {tuple(lengths.shape)} of {str(lengths.dtype).removeprefix('torch.')}; "
            f"give one whole number for each of {len(tokens)} rows"
        )
    M = tokens.shape[1]
    if len(tokens) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= M:
        raise ValueError(f"lengths={lengths.tolist()} do not fit a prompt of {M} tokens; give 0 to {M}")
    return torch.arange(M, device=tokens.device) < lengths.unsqueeze(1)


def _made(kind: str, D: int, options: Mapping[str, Mapping[str, int]]) -> Mixer:
    return KINDS[kind](D, **options[kind])

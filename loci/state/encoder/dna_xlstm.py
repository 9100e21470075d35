"""DNA-xLSTM: xLSTM blocks that read both strands of DNA in both directions with one set of weights.

    x = [x_1, x_2]       a strand, and the other one turned to lie along it: E(s), flip(E(rc s))        D = 2 d channels
    F~(x) = [ F(x_1), flip(F(flip x_2)) ]                         every sub-layer F: norm, mixer, feed-forward net
    y     = B(x) + turn(B(turn x))                                every block B, from both ends; `turn` reverses time
    encode(flip x) = flip encode(x)                               exactly, for any weights

`flip` reverses time and channels, within a row's length. A block read from both ends turns with its text, so flip and turn
cancel in time: `encode` flips the channels of x_2 alone and has both strands and directions as rows of one batch.
`encode_by_layers` is the definition, sub-layer after sub-layer, and its oracle.

Embedding, head and the masked language model around it are in `reverse_complement`.

Paper: Schmidinger et al., "Bio-xLSTM: Generative modeling, representation and in-context learning of biological and chemical
sequences", arXiv:2411.04165, section 3; shared parameters as in Schiff et al., "Caduceus", arXiv:2403.03234.
Differs: the authors' code does not wrap an mLSTM, which then does not fit 2 d channels, and norms an sLSTM's heads in another
order on the second strand, which breaks the equality; here all sub-layers are wrapped alike. No place embeddings, which
are off in their configuration, and no dropout.
Keeps: p*(d + M*(d + 3*d*I + I*(W + 3*b + 6*H + 3) + 2*H) + S*d*(W + 8 + 8*d/H + 3*F)) bytes of parameters for M mLSTM and S
sLSTM blocks, those of one strand; in a call, activations of two strands in two directions.

Shapes: B batch, T time, D = 2 d width, H heads, I inner and b block channels of an mLSTM, F inner channels of the feed-forward
net, W taps.

>>> encoder = DNAxLSTM(8, layers=2, heads=2, slstm_at=[1])
>>> x = torch.randn(3, 7, 8)
>>> y = encoder(x)
>>> bool(torch.allclose(encoder(x.flip(1, 2)), y.flip(1, 2), atol=1e-5))
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.encoder.base import Encoder
from loci.state.encoder.bidirectional import turned
from loci.state.mlstm import MLSTM
from loci.state.slstm import SLSTM
from loci.state.xlstm import Block, GatedFeedForward


class FromBothEnds(nn.Module):
    """A block that reads a text from its start and from its end, with the same weights."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """B(x) + turn(B(turn x)) of one strand, (B, T, d): both directions as rows of one batch."""
        forth, back = self.one_way(torch.cat([x, turned(x, lengths)])).chunk(2)
        return forth + turned(back, lengths)

    def one_way(self, x: Tensor) -> Tensor:
        """B(x), from the start alone and without a state."""
        mixer, feed, feed_norm = self.block.mixer, self.block.feed, self.block.feed_norm
        x = x + mixer.scan(self.block.norm(x), mixer.initial_state(len(x)))[0]
        return x if feed is None or feed_norm is None else x + feed(feed_norm(x))

    def by_layers(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same of both strands, (B, T, 2 * d), direction after direction: the definition."""
        forth, back = (self.one_way_by_layers(rows, lengths) for rows in (x, turned(x, lengths)))
        return forth + turned(back, lengths)

    def one_way_by_layers(self, x: Tensor, lengths: Tensor) -> Tensor:
        """B~(x): every sub-layer wrapped by itself, the mixer step by step."""
        mixer, feed, feed_norm = self.block.mixer, self.block.feed, self.block.feed_norm

        def mixed(rows: Tensor) -> Tensor:
            return mixer.scan_by_steps(rows, mixer.initial_state(len(rows)))[0]

        x = x + on_both_strands(mixed, on_both_strands(self.block.norm, x, lengths), lengths)
        if feed is None or feed_norm is None:
            return x
        return x + on_both_strands(feed, on_both_strands(feed_norm, x, lengths), lengths)


@method(
    name="dna-xlstm",
    kind="encoder",
    title="Bio-xLSTM: Generative modeling, representation and in-context learning of biological and chemical sequences",
    paper="arXiv:2411.04165",
    says="reads both strands of DNA both ways with the weights of one: a text and its reverse complement are the same text",
    bytes="p*(d + M*(d + 3*d*I + I*(W + 3*b + 6*H + 3) + 2*H) + S*d*(W + 8 + 8*d/H + 3*F))",
    example={"D": 8, "layers": 2, "heads": 2, "slstm_at": [1], "feed": 6, "chunk": 8},
    needs=("torch",),
    system="bio_xlstm",
)
class DNAxLSTM(Encoder):
    """The stack and its last norm, (B, T, 2 * d) -> (B, T, 2 * d); 4 blocks of d = 256 in the authors' configuration."""

    def __init__(
        self,
        D: int,  # of both strands
        *,
        layers: int = 4,
        heads: int = 4,
        slstm_at: Sequence[int] = (),  # which layers are sLSTM blocks; the others are mLSTM blocks
        inner: int | None = None,  # of an mLSTM, D unless given: twice a strand's width
        feed: int | None = None,  # of the net behind an sLSTM, 1.3 of a strand's width up to the next 64 unless given
        conv: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__()
        d, sites = D // 2, set(slstm_at)
        if D < 2 or D % 2:
            raise ValueError(f"D={D} does not hold two strands alike; choose an even D, half of it for each")
        if layers < 1:
            raise ValueError(f"layers={layers} reads nothing; choose at least 1")
        if not sites <= set(range(layers)):
            raise ValueError(f"slstm_at={sorted(sites)} of {layers} layers; choose places from 0 to {layers - 1}")
        self.D, self.d, self.heads, self.conv = D, d, heads, conv
        self.inner = 2 * d if inner is None else inner
        self.feed = -(-13 * d // 640) * 64 if feed is None else feed
        self.mlstms, self.slstms = layers - len(sites), len(sites)

        def block(layer: int) -> Block:
            if layer not in sites:
                return Block(MLSTM(d, heads=heads, inner=self.inner, conv=conv, chunk=chunk, blocks=layers))
            depth = layer / max(layers - 1, 1)
            mixer = SLSTM(d, heads=heads, conv=conv, depth=depth)
            return Block(mixer, feed=GatedFeedForward(d, inner=self.feed, blocks=layers))

        self.blocks = nn.ModuleList(FromBothEnds(block(layer)) for layer in range(layers))
        self.norm = nn.LayerNorm(d, bias=False)

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Both strands from both ends, as four rows for each of the batch."""
        this, other = x.chunk(2, -1)
        strands = torch.cat([this, other.flip(-1)])  # (2 B, T, d)
        lengths = heard.sum(1).repeat(2)
        for block in self.blocks:
            strands = block(strands, lengths)
        this, other = self.norm(strands).chunk(2)
        return torch.cat([this, other.flip(-1)], -1)

    def encode_by_layers(self, x: Tensor, heard: Tensor) -> Tensor:
        """The definition, and the oracle of `encode`: each sub-layer wrapped by itself, each mixer step by step."""
        lengths = heard.sum(1)
        for block in self.blocks:
            x = block.by_layers(x, lengths)  # type: ignore[operator]
        return on_both_strands(self.norm, x, lengths)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """M mLSTM and S sLSTM blocks of d channels a strand, H heads, the inner widths I and F, W taps, blocks of b channels."""
        sizes = {"M": self.mlstms, "S": self.slstms, "d": self.d, "H": self.heads, "I": self.inner, "F": self.feed}
        return {**sizes, "W": self.conv, "b": 4, "p": self.norm.weight.element_size()}


def flipped(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Time, within each row's length, and channels reversed: what the reverse complement does to features. Its own inverse.

    >>> flipped(torch.tensor([[[1, 2], [3, 4], [0, 0]]]), torch.tensor([2])).tolist()
    [[[4, 3], [2, 1], [0, 0]]]
    """
    return turned(x, lengths).flip(-1)


def on_both_strands(F: Callable[[Tensor], Tensor], x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """F~ for any map F of one strand (B, T, d): it commutes with `flipped` over (B, T, 2 * d)."""
    this, other = x.chunk(2, -1)
    return torch.cat([F(this), flipped(F(flipped(other, lengths)), lengths)], -1)

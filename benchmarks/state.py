"""Every mixer's scan beside its own loop, and beside a public PyTorch form of the same layer where there is one, in one run.

    pip install mambapy s5-pytorch xlstm titans-pytorch        # peers; those that are not installed are left out
    python benchmarks/state.py [--device cuda] [--length 2048] [--only NAME] [--table-only]

Batch 4, width 64, float32, one thread. A scan or loop goes forward without gradients; training is forward and backward of a
scan. The least of three times. A step is timed after 64 and after 8,192 moments were read. Writes
benchmarks/results/state.jsonl and the table of docs/benchmarks.md.
"""

import argparse
import inspect
import json
import platform
import time
from pathlib import Path

import torch
from page import fill
from rich.progress import track
from torch import nn

from loci.state import mixers
from loci.state.mixer import state_bytes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "state.jsonl"
B, D = 4, 64
GIVEN = {"n": 64, "heads": 4, "classes": 8}  # to constructors that know them; all else is the default


def built(name):
    """A mixer of width D."""
    member = mixers()[name]
    known = inspect.signature(member).parameters
    return member(D, **{key: value for key, value in GIVEN.items() if key in known})


def peers(length):
    """A public form's name and what makes its module (B, T, D) -> (B, T, ...), by the mixer it stands beside."""
    return {
        "lstm": ("torch.nn.LSTM", lambda: Shown(nn.LSTM)),
        "gru": ("torch.nn.GRU", lambda: Shown(nn.GRU)),
        "elman": ("torch.nn.RNN", lambda: Shown(nn.RNN)),
        "attention": ("scaled_dot_product_attention", Attended),
        "mamba": ("mambapy, parallel scan", mambapy),
        "s5": ("s5-pytorch", s5),
        "mlstm": ("xlstm, mlstm_kernels chunkwise", lambda: mlstm(length)),
        "slstm": ("xlstm, vanilla", slstm),
        "titans": ("titans-pytorch", titans),
    }


class Shown(nn.Module):
    """A cell of torch's, and a map of its units to the output, as ours have."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.out = cell(D, 64, batch_first=True), nn.Linear(64, D)

    def forward(self, x):
        """(B, T, D)."""
        return self.out(self.cell(x)[0])


class Attended(nn.Module):
    """All of the past through torch's own attention, causal."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)

    def forward(self, x):
        """(B, T, D)."""
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def mambapy():
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=D, n_layers=1, d_state=16))


def s5():
    from s5 import S5

    return S5(D, 64)


def mlstm(length):
    """The authors' layer over their chunkwise form: the layer's own form is quadratic in time."""
    from mlstm_kernels.torch.chunkwise.native import mlstm_chunkwise__native_autograd as chunkwise
    from xlstm.blocks.mlstm.layer import mLSTMLayer, mLSTMLayerConfig

    layer = mLSTMLayer(mLSTMLayerConfig(embedding_dim=D, context_length=length, num_heads=4))
    layer.mlstm_cell.backend_fn = lambda queries, keys, values, igate_preact, fgate_preact, **_: chunkwise(
        queries, keys, values, igate_preact.squeeze(-1), fgate_preact.squeeze(-1)
    )
    return layer


def slstm():
    from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

    return sLSTMLayer(sLSTMLayerConfig(embedding_dim=D, num_heads=4, backend="vanilla"))


def titans():
    from titans_pytorch import NeuralMemory

    return NeuralMemory(dim=D, dim_head=D // 4, heads=4, chunk_size=16)


def least(call, device, *, times=3):
    """Seconds."""
    taken = []
    for _ in range(times):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken)


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measured(name, mixer, x, device):
    """One row."""
    with torch.no_grad():
        fresh = mixer.initial_state(B)
        scan = least(lambda: mixer.scan(x, fresh), device)
        loop = least(lambda: mixer.scan_by_steps(x, fresh), device, times=1)
        steps = []
        for length in (64, 8192):
            state = mixer.scan(x[:, :64].repeat(1, length // 64, 1), fresh)[1]
            steps.append(stepped(mixer, x, state, device))
    return {
        "of": f"mixer/{name}", "state_bytes": state_bytes(state) // B, "scan_s": scan, "loop_s": loop,
        "train_s": least(lambda: trained(mixer, x), device), "step_64_s": steps[0], "step_8192_s": steps[1],
    }  # fmt: skip


def stepped(mixer, x, state, device):
    """Seconds of one step from this state."""
    return least(lambda: [mixer.step(x[:, t], state) for t in range(32)], device) / 32


def trained(module, x):
    """Forward and backward."""
    out = module(x)
    torch.autograd.backward((out[0] if isinstance(out, tuple) else out).square().mean())


def beside(module, x, device):
    """A peer's times."""
    with torch.no_grad():
        scan = least(lambda: module(x), device)
    return {"peer_scan_s": scan, "peer_train_s": least(lambda: trained(module, x), device)}


def rows(names, length, device):
    """All rows of this run."""
    torch.manual_seed(0)
    x, found = torch.randn(B, length, D, device=device), peers(length)
    for name in track(names, description="mixers"):
        row = {"device": device_name(device), "length": length, **measured(name, built(name).to(device), x, device)}
        if name in found:
            label, make = found[name]
            try:
                row |= {"peer": label, **beside(make().to(device), x, device)}
            except ImportError as error:
                print(f"{name}: {label} is left out, {error}")
        yield row


def device_name(device):
    return torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, one thread"


def table(held):
    """Lines of Markdown."""
    yield "| mixer | state bytes a row | scan ms | loop / scan | training ms | step µs at 64 | at 8,192 | peer | peer / scan | peer / training |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in held:
        peer = (
            f"{row['peer']} | {row['peer_scan_s'] / row['scan_s']:.2f} | {row['peer_train_s'] / row['train_s']:.2f}"
            if "peer" in row
            else " | | "
        )
        yield (
            f"| {row['of'].split('/')[1]} | {row['state_bytes']:,} | {1e3 * row['scan_s']:.1f} | {row['loop_s'] / row['scan_s']:.1f} | "
            f"{1e3 * row['train_s']:.1f} | {1e6 * row['step_64_s']:.0f} | {1e6 * row['step_8192_s']:.0f} | {peer} |"
        )


def main():
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    ask.add_argument("--length", type=int, default=2048)
    ask.add_argument("--only", choices=sorted(mixers()))
    ask.add_argument("--table-only", action="store_true")
    said = ask.parse_args()
    torch.set_num_threads(1)
    held = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    if not said.table_only:
        new = list(rows([said.only] if said.only else sorted(mixers()), said.length, said.device))
        taken = {(row["device"], row["length"], row["of"]) for row in new}
        held = sorted(
            [row for row in held if (row["device"], row["length"], row["of"]) not in taken] + new,
            key=lambda row: (row["device"], row["length"], row["of"]),
        )
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in held), "utf-8")
    fill("docs/benchmarks.md", "state", list(table(held)))


if __name__ == "__main__":
    main()

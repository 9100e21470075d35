"""Every mixer's scan beside its own loop, and beside a public PyTorch form of the same layer where there is one, in one run.

    pip install mambapy s5-pytorch          # peers; those that are not installed are left out
    python benchmarks/state.py [--device cuda] [--length 2048] [--only NAME] [--table-only]

Batch 4, width 64, float32, one thread. A scan or loop goes forward without gradients; training is forward and backward of a
scan. The least of three times. A step is timed after 64 and after 8,192 moments were read. Writes
benchmarks/results/state.jsonl and the table of docs/benchmarks.md.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from page import fill
from rich.progress import track

from loci.state import mixers
from loci.state.mixer import state_bytes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "state.jsonl"
B, D = 4, 64
SIZES = {  # arguments beside D
    "attention": {"heads": 4, "window": 1024}, "atlas": {"heads": 4}, "base-conv": {}, "delta-rule": {"heads": 4},
    "elman": {"n": 64}, "emergent-timescales": {"n": 64}, "emergent-timescales-outside": {"n": 64}, "gru": {"n": 64},
    "hcam": {"M": 32, "C": 32, "k": 4}, "irnn": {"n": 64}, "jordan": {"n": 64}, "jrt": {"heads": 4},
    "linear-attention": {"heads": 4}, "lmu": {}, "lstm": {"n": 64}, "lstm-1997": {"n": 64}, "lstm-no-forget": {"n": 64},
    "lstm-peephole": {"n": 64}, "mamba": {}, "mlstm": {}, "ntm": {"n": 64}, "omeganet": {"heads": 4}, "outer-product-lstm": {"n": 64}, "s5": {"P": 64},
    "s5-rl": {}, "slstm": {},
    "synthetic-gradient-memory": {"n": 64, "classes": 8}, "titans": {"heads": 4},
}  # fmt: skip


def peers():
    """A public form's name and module (B, T, D) -> (B, T, ...) by the mixer it stands beside."""
    found = {
        "lstm": ("torch.nn.LSTM", torch.nn.LSTM(D, 64, batch_first=True)),
        "gru": ("torch.nn.GRU", torch.nn.GRU(D, 64, batch_first=True)),
        "elman": ("torch.nn.RNN", torch.nn.RNN(D, 64, batch_first=True)),
    }
    try:
        from mambapy.mamba import MambaBlock, MambaConfig

        found["mamba"] = ("mambapy, parallel scan", MambaBlock(MambaConfig(d_model=D, n_layers=1, d_state=16)))
    except ImportError:
        pass
    try:
        from s5 import S5

        found["s5"] = ("s5-pytorch", S5(D, 64))
    except ImportError:
        pass
    return found


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
    x, known, found = torch.randn(B, length, D, device=device), mixers(), peers()
    for name in track(names, description="mixers"):
        mixer = known[name](D, **SIZES[name]).to(device)
        row = {"device": device_name(device), "length": length, **measured(name, mixer, x, device)}
        if name in found:
            label, module = found[name]
            row |= {"peer": label, **beside(module.to(device), x, device)}
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
    ask.add_argument("--only", choices=sorted(SIZES))
    ask.add_argument("--table-only", action="store_true")
    said = ask.parse_args()
    torch.set_num_threads(1)
    held = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    if not said.table_only:
        new = list(rows([said.only] if said.only else sorted(SIZES), said.length, said.device))
        taken = {(row["device"], row["length"], row["of"]) for row in new}
        held = sorted(
            [row for row in held if (row["device"], row["length"], row["of"]) not in taken] + new,
            key=lambda row: (row["device"], row["length"], row["of"]),
        )
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in held), "utf-8")
    fill("docs/benchmarks.md", "state", list(table(held)))


if __name__ == "__main__":
    main()

"""The bytes that `loci fit` foresees beside what the allocator counted: 8 plans x 3 models, each in a process of its own.

    python benchmarks/fit.py [--device cuda] [--large] [--only MODEL] [--tables-only]

A step is foreseen on fake tensors, then the same training runs for real, without loci's meter: as many steps as are foreseen, the
last one with subspaces chosen anew. On the CPU the peak is that of PyTorch's own allocator, the running sum of the [memory] events
of a torch.profiler trace that begins before the model is built; on CUDA it is torch.cuda.max_memory_allocated. `--large` takes
models of up to 1.5 billion parameters, for GPUs. Writes benchmarks/results/fit.jsonl, one line a cell, device by device.
"""

import argparse
import json
import multiprocessing
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from page import fill
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from loci.budget.device import device as named
from loci.budget.forecast import Forecasts
from loci.budget.plan import Plan
from loci.budget.simulate import dearest, simulate, warm
from loci.budget.subject import subject
from loci.budget.training import Training

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "fit.jsonl"
STEPS = "the steps that are foreseen"
PLANS = [
    Plan("adamw", "fp32"),
    Plan("adamw", "bf16-mixed", checkpointing=True),
    Plan("galore", "fp32", micro_batches=2),
    Plan("galore", "bf16", fused=True),
    Plan("apollo-mini", "bf16-mixed", micro_batches=2),
    Plan("sgd-sai", "fp32", checkpointing=True, fused=True),
    Plan("mezo", "bf16"),
    Plan("natural-galore", "fp32", checkpointing=True),
]
LLAMA = {
    "model_type": "llama", "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512,
}  # fmt: skip
LARGE = {**LLAMA, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16,
         "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048}  # fmt: skip


class Residual(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(x + self.body(x))


def convolutional(width=32, rows=8, side=32, depth=4):
    """A residual network over pictures, its loss, and a batch."""
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.Sequential(*(Residual(width) for _ in range(depth))),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * width, 256), nn.ReLU(), nn.Linear(256, 10),
    )  # fmt: skip
    batch = {"x": torch.randn(rows, 3, side, side), "y": torch.arange(rows) % 10}
    return model, batch, lambda model, batch: nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def convolutional_large():
    return convolutional(512, 64, 64, 16)


def configured(config, batch):
    """A subject of a Hugging Face configuration; it is read again wherever the model is built."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "llama" / "config.json"
        path.parent.mkdir()
        path.write_text(json.dumps(config), "utf-8")
        return subject(path, batch=batch)


MODELS = {
    "gpt:nano 8x128": lambda: subject("gpt:nano", batch=(8, 128)),
    "llama 0.9M 8x64": lambda: configured(LLAMA, (8, 64)),
    "convolutional 8x32x32": lambda: subject(convolutional),
}
BIG = {
    "gpt:350m 4x1024": lambda: subject("gpt:350m", batch=(4, 1024)),
    "llama 1.2B 4x1024": lambda: configured(LARGE, (4, 1024)),
    "convolutional 64x64x64": lambda: subject(convolutional_large),
}


def foreseen(what, plan, device):
    """The forecast that plans are chosen by, and the whole plan's simulation, which it must equal."""
    found = Forecasts(what, named(device)).peak(plan)
    whole = simulate(what, plan, named(device)).peak().bytes + named(device).workspace
    return {"foreseen": found.bytes, "simulated": whole, **found.split, "phase": found.phase}


def run(what, plan, device):
    """The steps that `simulate` takes, and the last one of them."""
    training = Training(what, plan, device=device)
    with record_function(STEPS):
        for _ in range(warm(training.optimizer) + 1):
            training.step(training.batch)
        dearest(training.optimizer)
        training.step(training.batch)


def counted(what, plan, device):
    """The most bytes that the allocator had handed out at once in those steps."""
    if device == "cuda":
        run(what, plan, device)
        return torch.cuda.max_memory_allocated()
    with tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            run(what, plan, device)
        path = Path(folder) / "trace.json"
        watched.export_chrome_trace(str(path))
        return highest(json.loads(path.read_text("utf-8"))["traceEvents"])


def highest(events):
    """The peak of bytes alive since the steps began: what was alive before them counts, its own peak does not."""
    (start,) = (event["ts"] for event in events if event.get("name") == STEPS and event.get("ph") == "X")
    memory = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    live, peak = 0, 0
    for event in memory:
        live += event["args"]["Bytes"]
        peak = max(peak, live) if event["ts"] >= start else live
    return peak


def cell(name, plan, device, large):
    """One row of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    what = (BIG if large else MODELS)[name]()
    seen = foreseen(what, plan, device)
    torch.manual_seed(0)
    measured = counted(what, plan, device)
    where = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    return {
        "device": device, "where": where, "torch": torch.__version__, "model": name, "plan": str(plan), "counted": measured,
        **seen, "error": seen["foreseen"] / measured - 1,
    }  # fmt: skip


def cells(chosen):
    """Every cell, in a process that ends with it, so that no cache of one is alive in the next."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        names = [name for name in (BIG if chosen.large else MODELS) if name.startswith(chosen.only)]
        waiting = [pool.submit(cell, name, plan, chosen.device, chosen.large) for name in names for plan in PLANS]
        for one in waiting:
            row = one.result()
            print(json.dumps(row), file=sys.stderr)
            yield row


def table(rows):
    """Markdown: one line a cell, then the largest error of each device."""
    yield "| device | model | plan | foreseen, MB | counted, MB | error |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        sizes = f"{row['foreseen'] / 1e6:.3f} | {row['counted'] / 1e6:.3f}"
        yield f"| {row['device']} | {row['model']} | {row['plan']} | {sizes} | {row['error']:+.2%} |"
    for device in sorted({row["device"] for row in rows}):
        errors = [abs(row["error"]) for row in rows if row["device"] == device]
        yield f"\n{device}: {len(errors)} cells, largest error {max(errors):.2%}, mean {sum(errors) / len(errors):.2%}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--large", action="store_true", help="models for a GPU")
    parser.add_argument("--only", default="", help="models whose name starts so; nothing is written")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--tables-only", action="store_true", help="from the results at hand")
    chosen = parser.parse_args()
    old = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    rows = old if chosen.tables_only else list(cells(chosen))
    if not (chosen.tables_only or chosen.only):
        new = {(row["device"], row["model"], row["plan"]): row for row in rows}
        rows = [new.pop((row["device"], row["model"], row["plan"]), row) for row in old] + list(new.values())
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    print("\n".join(table(rows)))
    if not chosen.only:
        fill(
            "docs/fit.md",
            "fit",
            [
                *table(rows),
                "",
                "`python benchmarks/fit.py`, the real step under torch's profiler; `--device cuda` on a GPU.",
            ],
        )

"""Small targets for training, and the same file as a program whose runs are cut: `python small.py FOLDER`."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import torch
from torch import nn

import loci
from loci.budget.plan import Plan

ROWS, T, TOKENS, STEPS = 4, 8, 20, 12


class Block(nn.Module):
    """A two-layer map beside a way around it."""

    def __init__(self, width, drop):
        super().__init__()
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(drop)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(self.drop(self.up(self.norm(x)).relu()))


class Model(nn.Module):
    """Next tokens from the last one."""

    def __init__(self, width=16, drop=0.0):
        super().__init__()
        self.embed, self.head = nn.Embedding(TOKENS, width), nn.Linear(width, TOKENS)
        self.blocks = nn.ModuleList(Block(width, drop) for _ in range(2))

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def loss(model, x):
    return nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def batch(number):
    """Rows that count upwards by one or two, so there is something to learn."""
    random = torch.Generator().manual_seed(number)
    start, by = torch.randint(0, TOKENS, (ROWS, 1), generator=random), torch.randint(1, 3, (ROWS, 1), generator=random)
    return (start + by * torch.arange(T + 1)) % TOKENS


def words():
    return Model(), torch.zeros(ROWS, T + 1, dtype=torch.long), loss


def exact():
    return Model().double(), torch.zeros(ROWS, T + 1, dtype=torch.long), loss


def dropping():
    return Model(drop=0.2), torch.zeros(ROWS, T + 1, dtype=torch.long), loss


class Averages(nn.Module):
    """Batch norms, whose running means a forward pass moves, under dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2)) for _ in range(3)
        )

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def averages():
    return Averages(), torch.zeros(64, 32), lambda model, x: (model(x) - x).square().mean()


RUNS = {  # what is cut: target, plan, options
    "adamw": (words, Plan(), {}),
    "parts": (words, Plan("adamw", "bf16-mixed", checkpointing=True, micro_batches=2), {}),
    "scaler": (words, Plan("adamw", "fp16-mixed"), {}),
    "dropout": (dropping, Plan("sgd", checkpointing=True), {}),
    "mezo": (dropping, Plan("mezo"), {"lr": 1e-3}),
    "galore-8bit": (words, Plan("galore-8bit", fused=True), {"update_proj_gap": 3}),
    "half": (words, Plan("apollo", "bf16"), {"lr": 1e-2}),
}


def weighed(name):
    """The fit of one of RUNS, its own plan among few."""
    target, plan, options = RUNS[name]
    return loci.fit(target, device="cpu", optimizer=[plan.optimizer], precision=[plan.precision], options=options)


def run(name, folder, *, fit, steps=STEPS, report=None):
    """One run of RUNS."""
    return fit.train(batch, steps=steps, seed=3, plan=RUNS[name][1], checkpoints=folder, every=2, report=report)


def between(now):
    """Killed after step 5, of which no checkpoint tells."""
    if now.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def inside(now):
    """Killed by the system while the checkpoint of step 6 is written, after its first bytes."""
    if now.step == 6:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))


def main(folder):
    """Every run, cut in both ways, each in a process of its own; their exit codes."""
    for name in RUNS:
        fit = weighed(name)
        for cut in (between, inside):
            child = os.fork()
            if not child:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                run(name, Path(folder, f"{name}-{cut.__name__}"), fit=fit, report=cut)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            print(name, cut.__name__, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])

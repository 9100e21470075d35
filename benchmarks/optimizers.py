"""loci's optimizers beside the packages of their authors in one run: the same update, the bytes of state, the time of a step.

    pip install --no-deps galore-torch apollo-torch sgd-sai pytorch-optimizer
    python benchmarks/optimizers.py [--device cuda] [--quick] [--only galore] [--tables-only]

The shapes are a transformer's (4 layers of width 512, vocabulary 4096). Both optimizers take the same gradients, and the same
projector where the method draws one. The difference is the largest over tensors and 10 steps, in float64, so that it shows the
method and not the rounding; times are medians of float32 steps that take turns. What loci gives up on purpose stands in `note`.
A peer that is not installed is left out and named. Writes benchmarks/results/optimizers.jsonl, one line a pair, device by device.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from page import fill
from torch import nn

from loci.weights.optim import apollo, galore, lamb, sgd_sai
from loci.weights.optim.projection import subspace

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "optimizers.jsonl"
RANK, GAP, STEPS, LR = 128, 200, 10, 0.01


def shapes(layers=4, width=512, mlp=2048, vocab=4096):
    """Those of the matrices that are projected, and the rest."""
    block = [*[(width, width)] * 4, (mlp, width), (width, mlp)]
    around = [*[(width,)] * 4, (mlp,), (width,), *[(width,)] * 4]  # biases, two norms
    return block * layers, [(vocab, width), *around * layers, (width,), (width,), (vocab, width)]


class Weights:
    """Parameters with gradients that can be put back, for some peers write into them."""

    def __init__(self, sizes, dtype, device, seed=0):
        self.random = torch.Generator(device).manual_seed(seed)
        self.dtype, self.device = dtype, device
        self.matrices, self.rest = ([nn.Parameter(0.02 * self.draw(size)) for size in part] for part in sizes)
        self.all = [*self.rest, *self.matrices]
        self.turn()

    def draw(self, size):
        return torch.randn(size, generator=self.random, dtype=self.dtype, device=self.device)

    def turn(self):
        """New gradients: a decaying spectrum, a mean that is not zero."""
        self.grads = [
            0.01 * self.draw(p.shape) * torch.arange(1, p.shape[-1] + 1, device=self.device, dtype=self.dtype).rsqrt()
            + 0.001
            for p in self.all
        ]

    def put(self):
        for param, grad in zip(self.all, self.grads, strict=True):
            if param.grad is None:
                param.grad = grad.clone()
            else:
                param.grad.copy_(grad)

    def groups(self, **options):
        return [{"params": self.rest}, {"params": self.matrices, **options}]

    def by_dimension(self, **options):
        vectors, matrices = ([p for p in self.all if (p.dim() < 2) == flat] for flat in (True, False))
        return [{"params": vectors, **options}, {"params": matrices}]


@dataclass
class Pair:
    """A method of loci and who else has it; `gap` is given where a step may refresh the projector."""

    name: str
    peer: str
    ours: Callable
    theirs: Callable
    same_projector: Callable = contextlib.nullcontext
    refreshes: bool = False
    note: str = ""
    needs_cuda: bool = False


def package(name):
    """A peer; where bitsandbytes is missing it sees a stub while it is imported, for the 8-bit forms alone need it."""
    stubs = {}
    if importlib.util.find_spec("bitsandbytes") is None and name.startswith(("galore", "apollo")):
        stub = types.ModuleType("bitsandbytes")
        stub.Optimizer2State, stub.functional = object, stub
        stubs = dict.fromkeys(
            (f"bitsandbytes{part}" for part in ("", ".optim", ".optim.optimizer", ".functional")), stub
        )
    sys.modules |= stubs
    try:
        return importlib.import_module(name)
    finally:
        for stub in stubs:
            del sys.modules[stub]


def low_rank(gap):
    return {"rank": RANK, "update_proj_gap": gap, "proj_type": "std", "scale": 0.25}


def galore_torch(w, gap):
    return package("galore_torch.adamw").AdamW(w.groups(**low_rank(gap)), lr=LR, no_deprecation_warning=True)


def galore_torch_8bit(w, gap):
    return package("galore_torch.adamw8bit").AdamW8bit(w.groups(**low_rank(gap)), lr=LR, eps=1e-6, weight_decay=0.0)


def galore_torch_adafactor(w, gap):
    return package("galore_torch.adafactor").Adafactor(
        w.groups(**low_rank(gap)), lr=LR, scale_parameter=False, relative_step=False, warmup_init=False
    )


def galore_other(w, gap):
    return package("pytorch_optimizer").GaLore(w.groups(**low_rank(gap), projection_type="std"), lr=LR)


def apollo_torch(w, gap, rank=RANK, scale=1.0, kind="channel"):
    group = {
        "rank": rank,
        "update_proj_gap": gap,
        "scale": scale,
        "scale_type": kind,
        "proj": "random",
        "proj_type": "std",
    }
    return package("apollo_torch.apollo").AdamW(w.groups(**group), lr=LR, no_deprecation_warning=True)


def apollo_other(w, gap):
    group = {"rank": RANK, "update_proj_gap": gap, "scale": 1.0, "projection_type": "std"}
    return package("pytorch_optimizer").APOLLO(w.groups(**group), lr=LR, scale_type="channel")


@contextlib.contextmanager
def singular_vectors(theirs):
    """loci is given the singular vectors that the peer found: their signs are arbitrary, and moments outlive them."""
    held = [theirs.state[p]["projector"] for group in theirs.param_groups if "rank" in group for p in group["params"]]
    queue = iter(held)
    plain = galore.subspace

    def given(grad, rank, which):
        P = next(queue).ortho_matrix
        return {which[0]: (P.T if which == ("right",) else P).contiguous()}

    galore.subspace = given
    try:
        yield
    finally:
        galore.subspace = plain


@contextlib.contextmanager
def random_matrices(theirs):
    """loci is given the random matrix of each of the peer's parameters, which the peer keeps and loci draws again."""
    plain = apollo.APOLLO.before

    def before(self, slot, group):
        if slot.param.dim() == 2 and group["rank"]:
            number = next(i for i, p in enumerate(group["params"]) if p is slot.param)
            P = theirs.state[theirs.param_groups[-1]["params"][number]]["projector"].ortho_matrix
            m, n = slot.grad.shape
            self._drawn[min(m, n), group["rank"], group["seed"], 0, slot.grad.device] = P.T if m >= n else P
        return plain(self, slot, group)

    apollo.APOLLO.before = before
    try:
        yield
    finally:
        apollo.APOLLO.before = plain


def ours_galore(member):
    return lambda w, gap: member(w.groups(rank=RANK), LR, update_proj_gap=gap)


def ours_apollo(w, gap):
    return apollo.APOLLO(w.groups(rank=RANK), LR, update_proj_gap=gap)


PAIRS = [
    Pair("galore", "galore-torch", ours_galore(galore.GaLore), galore_torch, singular_vectors, True),
    Pair("galore", "pytorch-optimizer", ours_galore(galore.GaLore), galore_other, singular_vectors, True),
    Pair("galore-8bit", "galore-torch", ours_galore(galore.GaLore8bit), galore_torch_8bit, singular_vectors, True,
         "loci quantises vectors too; its levels are its own", needs_cuda=True),
    Pair("galore-adafactor", "galore-torch", ours_galore(galore.GaLoreAdafactor), galore_torch_adafactor, singular_vectors, True),
    Pair("apollo", "apollo-torch", ours_apollo, apollo_torch, random_matrices, True,
         "loci draws the projector again at each step and keeps none"),
    Pair("apollo", "pytorch-optimizer", ours_apollo, apollo_other, random_matrices, True,
         "the peer scales the projected gradient and projects it back: not APOLLO's update, eq. (5)"),
    Pair("apollo-mini", "apollo-torch", lambda w, gap: apollo.APOLLOMini(w.groups(rank=1), LR, rank=None, update_proj_gap=gap),
         lambda w, gap: apollo_torch(w, gap, rank=1, scale=128.0, kind="tensor"), random_matrices, True),
    Pair("lamb", "pytorch-optimizer",
         lambda w, gap: lamb.LAMB(w.all, LR, weight_decay=0.0, clip=(0.0, 10.0), bias_correction=False),
         lambda w, gap: package("pytorch_optimizer").Lamb(w.all, lr=LR, adam_debias=True), note="the peer adds eps to ||u||"),
    Pair("lars-2017", "pytorch-optimizer",
         lambda w, gap: lamb.LARS2017(w.by_dimension(adapt=False, weight_decay=0.0), LR, weight_decay=1e-4),
         lambda w, gap: package("pytorch_optimizer").LARS(w.all, lr=LR, weight_decay=1e-4),
         note="the peer writes into the gradients"),
    Pair("sgd-sai", "sgd-sai", lambda w, gap: sgd_sai.SGDSaI(w.all, LR), lambda w, gap: package("sgd_sai").SGD_sai(w.all, lr=LR)),
    Pair("sgd-sai", "pytorch-optimizer", lambda w, gap: sgd_sai.SGDSaI(w.all, LR),
         lambda w, gap: package("pytorch_optimizer").SGDSaI(w.all, lr=LR),
         note="the peer starts the mean at 0, not at g, and gives vectors std 0: not the authors' update"),
]  # fmt: skip


def difference(pair, device, sizes):
    """The largest ||ours - theirs|| / ||theirs|| of an update, over tensors and steps."""
    one, two = (Weights(sizes, torch.float64, device) for _ in range(2))
    ours, theirs = pair.ours(one, GAP), pair.theirs(two, GAP)
    worst = 0.0
    for _ in range(STEPS):
        before = [p.detach().clone() for p in two.all]
        for own, other in zip(one.all, two.all, strict=True):
            own.data.copy_(other.data)
        one.put(), two.put()
        theirs.step()
        with pair.same_projector(theirs):
            ours.step()
        for old, own, other in zip(before, one.all, two.all, strict=True):
            worst = max(worst, float((own - other).detach().norm() / (other - old).detach().norm()))
        one.turn(), two.turn()
    return worst


def state_bytes(optimizer):
    """The storage of all tensors in the state, each storage once, those inside a peer's projector among them."""
    found = {}

    def look(value):
        if isinstance(value, torch.Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, (list, tuple)):
            [look(part) for part in value]
        elif isinstance(value, dict):
            [look(part) for part in value.values()]
        elif hasattr(value, "ortho_matrix"):
            look(vars(value))

    [look(state) for state in optimizer.state.values()]
    return sum(found.values())


def seconds(weights, optimizer):
    weights.put()
    wait = torch.cuda.synchronize if weights.device == "cuda" else bool
    wait()
    start = time.perf_counter()
    optimizer.step()
    wait()
    return time.perf_counter() - start


def in_turns(builds, device, sizes, turns, warm):
    """Seconds of each optimizer's steps, turn by turn, first one first and then the other."""
    runs = [(weights, build(weights)) for build in builds for weights in [Weights(sizes, torch.float32, device)]]
    taken = [[] for _ in runs]
    for turn in range(turns + warm):
        order = range(len(runs)) if turn % 2 else reversed(range(len(runs)))
        for place in order:
            spent = seconds(*runs[place])
            if turn >= warm:
                taken[place].append(spent)
    return taken, [state_bytes(optimizer) for _, optimizer in runs]


def ratio(one, two):
    return statistics.median(a / b for a, b in zip(one, two, strict=True))


def measure(pair, device, turns, sizes):
    def adamw(w):
        return torch.optim.AdamW(w.all, LR, foreach=True)

    never = 10**9
    builds = [lambda w: pair.ours(w, never), lambda w: pair.theirs(w, never), adamw]
    (ours, theirs, plain), held = in_turns(builds, device, sizes, turns, 3)
    row = {
        "method": pair.name, "peer": pair.peer, "difference": difference(pair, device, shapes(1, vocab=1024)),
        "state_bytes": {"loci": held[0], "peer": held[1], "adamw": held[2]},
        "ms_between": {name: 1000 * statistics.median(s) for name, s in zip(("loci", "peer", "adamw"), (ours, theirs, plain), strict=True)},
        "ratio_between": ratio(ours, theirs), "ratio_adamw": ratio(ours, plain),
    }  # fmt: skip
    row["ratio_at_200"] = row["ratio_between"]
    if pair.refreshes:
        builds = [lambda w: pair.ours(w, 1), lambda w: pair.theirs(w, 1)]
        (first, second), _ = in_turns(builds, device, sizes, 3, 1)
        row["ms_refresh"] = {
            name: 1000 * statistics.median(s) for name, s in zip(("loci", "peer"), (first, second), strict=True)
        }
        row["ratio_refresh"] = ratio(first, second)
        mean = [row["ms_refresh"][who] / GAP + row["ms_between"][who] * (GAP - 1) / GAP for who in ("loci", "peer")]
        row["ratio_at_200"] = mean[0] / mean[1]
    return {**row, "note": pair.note}


def projectors(device):
    """How far the projectors lie from the singular vectors in float64: ours, and a float32 SVD's, which the peers take."""
    random = torch.Generator(device).manual_seed(0)
    rows = []
    for m, n in ((512, 512), (2048, 512), (512, 2048)):
        G = torch.randn(m, n, generator=random, device=device) * torch.arange(1, n + 1, device=device).rsqrt()
        which = ("right",) if m >= n else ("left",)

        def vectors(x, which=which):
            U, _, Vh = torch.linalg.svd(x, full_matrices=False)
            return (Vh[:RANK].T if which == ("right",) else U[:, :RANK]).double()

        def gap(P, T):
            return float((P * (P * T).sum(0).sign() - T).norm(dim=0).max())

        true = vectors(G.double())
        rows.append(
            {
                "shape": [m, n],
                "loci": gap(subspace(G, RANK, which)[which[0]].double(), true),
                "svd": gap(vectors(G), true),
            }
        )
    return rows


def table(rows):
    yield "| method | peer | update differs by | state, MB (loci / peer / AdamW) | step, ms | time between | at refresh | at gap 200 | of AdamW |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        if "skipped" in row:
            yield f"| {row['method']} | {row['peer']} | {row['skipped']} |" + " |" * 6
            continue
        held = " / ".join(f"{size / 1e6:.2f}" for size in row["state_bytes"].values())
        ms = " / ".join(f"{value:.1f}" for value in row["ms_between"].values())
        refresh = f"{row['ratio_refresh']:.2f}" if "ratio_refresh" in row else ""
        yield (
            f"| {row['method']} | {row['peer']} | {row['difference']:.1e} | {held} | {ms} | {row['ratio_between']:.2f} "
            f"| {refresh} | {row['ratio_at_200']:.2f} | {row['ratio_adamw']:.2f} |"
        )


def run(chosen):
    where = (
        torch.cuda.get_device_name()
        if chosen.device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} thread"
    )
    told = {"device": chosen.device, "where": where, "torch": torch.__version__}
    for pair in PAIRS:
        if chosen.only and not pair.name.startswith(chosen.only):
            continue
        head = {**told, "method": pair.name, "peer": pair.peer}
        if pair.needs_cuda and chosen.device != "cuda":
            yield {**head, "skipped": "the peer needs CUDA"}
            continue
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # one of them prints as it steps
                row = measure(
                    pair, chosen.device, 5 if chosen.quick else 15, shapes(1, vocab=1024) if chosen.quick else shapes()
                )
        except ImportError as error:
            yield {**head, "skipped": f"not installed: {error}"}
            continue
        yield {**told, **row}
        print(json.dumps(row), file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="methods whose name starts so")
    parser.add_argument("--quick", action="store_true", help="one layer, few turns; nothing is written")
    parser.add_argument("--tables-only", action="store_true", help="from the results at hand")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    old = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    if chosen.tables_only:
        rows = old
    else:
        rows = list(run(chosen))
        if not chosen.quick:
            new = {(row["device"], row["method"], row["peer"]): row for row in rows}
            rows = [new.pop((row["device"], row["method"], row["peer"]), row) for row in old] + list(new.values())
            RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        print(json.dumps(projectors(chosen.device)))
    print("\n".join(table(rows)))
    if not (chosen.quick or chosen.only):
        fill("docs/train.md", "optimizers", [*table(rows), "", "`python benchmarks/optimizers.py`"])

"""MeZO: fine-tunes with two forward passes a step and the memory of inference; no gradients, any loss.

    g = (L(W + eps z) - L(W - eps z)) / (2 eps),  z ~ N(0, I),    W <- W - lr (g z + wd W)          definition 1, algorithm 1

z is drawn again from its seed whenever it is needed and never kept; weights are perturbed and restored in place. The run is
the list of (seed, g): `replay` rebuilds the weights from it without data.

Paper: Malladi, Gao, Nichani, Damian, Lee, Chen, Arora, "Fine-Tuning Language Models with Just Forward Passes", arXiv:2305.17333.
Differs: moments of the momentum and Adam forms (appendix B.2) look back over the last `window` steps, each of which is drawn
again; a step whose loss is not finite is left out. No layerwise rescaling of z.
Keeps: 0 bytes of tensors; a seed, a number and an lr a step in the log. While it steps, one z of the largest tensor (Adam three).

>>> W = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
>>> optimizer = MeZO([W], lr=0.1, eps=1e-2)
>>> losses = [float(optimizer.step(lambda: W.square().sum())) for _ in range(60)]
>>> losses[-1] < losses[0] / 10, W.grad is None, len(optimizer.log)
(True, True, 60)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.optim.base import Admitting, Closure, Params
from loci.weights.optim.projection import one_of
from loci.weights.optim.sharding import cut, mean

Step: TypeAlias = tuple[
    tuple[int, ...], tuple[float, ...], tuple[float, ...]
]  # seeds, projected gradients, lr by group


@method(
    name="mezo",
    kind="optimizer",
    title="Fine-Tuning Language Models with Just Forward Passes",
    paper="arXiv:2305.17333",
    says="fine-tunes in the memory of inference: two forward passes a step, the weights perturbed in place",
    bytes="0",
    example={"lr": 0.01},
    needs=("torch",),
    deviates={
        "lr_zero_changes_nothing": "weights are perturbed and restored in place, which leaves a few units in the last place",
        "order_of_parameters_does_not_matter": "z is drawn tensor by tensor, in the order given, from one stream",
    },
)
class MeZO(Admitting):
    """SPSA in place. `step(closure)` calls the closure twice for each of `samples` directions, without autograd.

    The closure returns the loss as a number or tensor, of one batch and without dropout (`model.eval()`); what it returns
    need not be differentiable: 1 - accuracy will do. `form` is sgd, momentum or adam. Give it the parameters to train: all,
    or those of a LoRA. In half precision choose `eps` so that eps*z is not lost beside the weights. Under `fully_shard` each rank
    draws the whole z of a tensor and keeps its rows, losses are averaged over ranks, and the root needs
    `reshard_after_forward=True`: without backward it would go on with the copy that it gathered.
    """

    zeroth_order = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-6,
        *,
        eps: float = 1e-3,
        samples: int = 1,
        form: Literal["sgd", "momentum", "adam"] = "sgd",
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        window: int = 64,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        one_of("form", form, ("sgd", "momentum", "adam"))
        if eps <= 0 or samples < 1 or window < 1:
            raise ValueError(
                f"eps={eps}, samples={samples}, window={window}: give an eps above 0 and at least one direction and step"
            )
        rules = {"form": form, "momentum": momentum, "betas": betas, "adam_eps": adam_eps, "window": window}
        super().__init__(
            params, {"lr": lr, "eps": eps, "samples": samples, "weight_decay": weight_decay, "seed": seed, **rules}
        )

    @property
    def log(self) -> list[Step]:
        """The run so far, one entry a step: with the first weights it is the last ones."""
        held: list[Step] = self._run["log"]
        return held

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step; returns the mean of the losses that the closure gave."""
        if closure is None:
            raise ValueError("MeZO.step() got no closure; give one that returns the loss, it is evaluated twice")
        head, turn = self.param_groups[0], self._run["turns"]
        self._run["turns"] += 1
        seeds = tuple(_seed(head["seed"], turn * head["samples"] + k) for k in range(head["samples"]))
        pairs = [self._both_sides(seed, closure) for seed in seeds]
        slopes = tuple((plus - minus) / (2 * head["eps"]) for plus, minus in pairs)
        if all(map(math.isfinite, slopes)):
            self._take((seeds, slopes, tuple(float(group["lr"]) for group in self.param_groups)))
        return sum(plus + minus for plus, minus in pairs) / (2 * len(pairs))

    def _both_sides(self, seed: int, closure: Closure) -> tuple[float, float]:
        """The loss at W + eps z and at W - eps z; W is back in its place, also when the closure fails."""
        offset = 1.0
        self._shift(seed, offset)
        try:
            plus = self._loss(closure)
            self._shift(seed, -2.0)
            offset = -1.0
            minus = self._loss(closure)
        finally:
            self._shift(seed, -offset)
        return plus, minus

    def _loss(self, closure: Closure) -> float:
        """The closure's loss; where ranks share the parameters, the mean of theirs, so that all take the same step."""
        return mean(float(closure()), next(param for _, param in self._trained()))

    def _shift(self, seed: int, times: float) -> None:
        stream = self._directions(seed)  # zip would hold the last z while the next is drawn
        for group, param in self._trained():
            param.add_(next(stream), alpha=times * group["eps"])

    def _trained(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for group in self.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    yield group, param

    def _directions(self, seed: int) -> Iterator[Tensor]:
        """The z of each trained parameter, drawn when it is its turn."""
        random: dict[torch.device, torch.Generator] = {}
        for _, param in self._trained():
            if param.device not in random:
                random[param.device] = torch.Generator(param.device).manual_seed(seed)
            size, stream = param.shape, random[param.device]
            yield cut(
                torch.randn(size, generator=stream, device=param.device, dtype=param.dtype), param
            )  # held by none

    def _take(self, step: Step) -> None:
        """Log a step and move the weights by what the last steps say."""
        self.log.append(step)
        terms = self._terms()
        streams = [self._directions(seed) for seed, _, _ in terms]
        rates = {id(group): rate for group, rate in zip(self.param_groups, step[2], strict=True)}
        for group, param in self._trained():
            lr = rates[id(group)]
            param.mul_(1 - lr * group["weight_decay"])
            if group["form"] == "adam":
                m, v = torch.zeros_like(param), torch.zeros_like(param)
                for (_, first, second), stream in zip(terms, streams, strict=True):
                    z = next(stream)
                    m.add_(z, alpha=first)
                    v.addcmul_(z, z, value=second)
                    del z  # one lives at a time
                param.addcdiv_(m, v.sqrt_().add_(group["adam_eps"]), value=-lr)
            else:
                for (_, first, _), stream in zip(terms, streams, strict=True):
                    param.add_(next(stream), alpha=-lr * first)

    def _terms(self) -> list[tuple[int, float, float]]:
        """Seeds with their weights in the first and second moment, newest step last."""
        head = self.param_groups[0]
        back = 1 if head["form"] == "sgd" else head["window"]
        steps = self.log[-back:]
        terms = []
        for age, (seeds, slopes, _) in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if head["form"] == "adam":
                (beta1, beta2), t = head["betas"], len(steps)
                one = beta1**age * (1 - beta1) / (1 - beta1**t)
                two = beta2**age * (1 - beta2) / (1 - beta2**t)
            else:
                one, two = head["momentum"] ** age, 0.0
            terms += [
                (seed, one * g / len(seeds), two * g * g / len(seeds)) for seed, g in zip(seeds, slopes, strict=True)
            ]
        return terms

    @property
    def _run(self) -> dict[str, Any]:
        run: dict[str, Any] = self.state["run"]  # type: ignore[index] # state that is no parameter's travels as it is
        if not run:
            run.update(turns=0, log=[])
        return run

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a run; the given one stays its own."""
        super().load_state_dict(state_dict)
        self.state["run"] = {**self._run, "log": list(self.log)}  # type: ignore[index]


@torch.no_grad()
def replay(optimizer: MeZO, log: Sequence[Step]) -> None:
    """Move the parameters of a fresh optimizer along a log, without data: to the bit where the log's run ended.

    The perturbations are carried out too, since they leave their roundings. Same type of device, dtype and shapes.
    """
    for step in log:
        optimizer._run["turns"] += 1
        for seed in step[0]:
            for times in (1.0, -2.0, 1.0):
                optimizer._shift(seed, times)
        optimizer._take(step)


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63

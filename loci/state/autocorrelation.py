"""Network-mediated timescales: for how long a unit in its network resembles itself, whatever its own time constant is.

    C(k) = mean over trials of  1/(T - k) sum_t (h_t - mean h) (h_{t+k} - mean h)
    C(k)/C(0) ~ a exp(-k/tau)     or     p exp(-k/tau_1) + q exp(-k/tau_2)          for k = 0..lags

Both curves are fitted by least squares, a, p, q >= 0, a and p + q <= 1; Akaike's criterion, m ln(RSS) + 2 (number of
parameters), chooses, and the slower time constant of the chosen curve is the unit's. For given time constants the best
amplitudes have a closed form, so that only the time constants are searched: on a grid of all of them, which no local
minimum can trap, and then on ever finer ones around the best, for all units at once.

Paper: Khajehabdollahi, Zeraati, Giannakakis, Schaefer, Martius, Levina, "Emergent mechanisms for long timescales depend on
training curriculum and affect performance in memory tasks", arXiv:2309.12927, and its published analysis.
Differs: a search of all time constants for a local least-squares solver. Two exponentials count only if the slower has a
tenth of their sum: the noise of a correlation is itself correlated, which the criterion does not know, and a hundredth of
the slowest possible exponential often fits it. What the subject is driven by is the caller's, not random bits alone.
Units that never change have no timescale: they are nan and not in the mean.
Keeps: 8*n bytes, the timescale of each of n units at the last reading.

>>> def leaky(x, state):
...     h = 0.8 * state[0] + x
...     return h, (h,)
>>> noise = torch.randn(10_000, 10, 3, generator=torch.Generator().manual_seed(0))
>>> reading = NetworkTimescale(burn=50).read(leaky, noise, (torch.zeros(10, 3),))
>>> abs(reading.value + 1 / math.log(0.8)) < 0.3, reading.unit
(True, 'steps')
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from loci.core.card import method
from loci.core.meter import Reading

State: TypeAlias = tuple[Tensor, ...]
Search: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Step: TypeAlias = Callable[[Tensor, State], tuple[object, State]]

SHORTEST = 0.1  # steps; exp(-1/0.1) is nothing already at the first lag
FLOOR = 1e-9  # of a residual: below it both curves are exact, and the simpler one is chosen
STILL = 1e-20  # of a variance: a unit that does not change but for rounding
SHARE = 0.1  # of the slower exponential: with less it is the noise of a finite run


class Fit(NamedTuple):
    """The best curves of each unit: time constants (units,), the slower first, residuals, and which curve was chosen."""

    one: Tensor
    two: Tensor  # (units, 2)
    share: Tensor  # (units,) of the slower of two in their sum at lag 0
    residual_one: Tensor
    residual_two: Tensor

    def is_double(self, lags: int) -> Tensor:
        """Where Akaike's criterion prefers two exponentials, 4 parameters for 2, and the slower one is not negligible."""
        gain = self.residual_one.clamp(min=FLOOR).log() - self.residual_two.clamp(min=FLOOR).log()
        return ((lags + 1) * gain > 4) & (self.share >= SHARE)

    def timescales(self, lags: int) -> Tensor:
        """The slower time constant of the chosen curve (units,)."""
        return torch.where(self.is_double(lags), self.two[:, 0], self.one)


@method(
    name="network-timescale",
    kind="meter",
    title="Emergent mechanisms for long timescales depend on training curriculum and affect performance in memory tasks",
    paper="arXiv:2309.12927",
    says="for how long the units of any recurrence resemble themselves, from exponentials fitted to their autocorrelation",
    bytes="8*n",
    example={"lags": 12, "burn": 8},
    needs=("torch",),
    system="emergent_timescales",
)
class NetworkTimescale:
    """Reads the mean timescale of the units in the first tensor of a state, after `burn` steps, from `lags` lags."""

    def __init__(self, *, lags: int = 30, burn: int = 500, longest: float = 100.0) -> None:
        if lags < 4 or burn < 0 or not longest > SHORTEST:
            raise ValueError(
                f"lags={lags}, burn={burn}, longest={longest} fit nothing; give lags >= 4, burn >= 0, longest > {SHORTEST}"
            )
        self.lags, self.burn, self.longest = lags, burn, longest
        self.timescales = torch.empty(0, dtype=torch.float64)

    def read(self, step: Step, inputs: Sequence[Tensor] | Tensor, state: State) -> Reading:
        """The mean over units; every row of the state is a trial."""
        if len(inputs) <= self.burn + self.lags:
            raise ValueError(
                f"{len(inputs)} inputs are too few for burn={self.burn} and lags={self.lags}; "
                f"give more than {self.burn + self.lags}"
            )
        activity = run(step, inputs, state)[self.burn :]
        if not bool(activity.isfinite().all()):
            raise ValueError("the activity is not finite, so it has no timescale; give a recurrence that is stable")
        found = timescales(autocorrelation(activity, self.lags), longest=self.longest)
        if bool(found.isnan().all()):
            raise ValueError(
                "no unit ever changes, so none has a timescale; drive the recurrence with inputs that vary"
            )
        self.timescales = found
        return Reading(float(found.nanmean()), "steps", "estimated")

    def shapes(self) -> dict[str, int]:
        """n, the units of the last reading."""
        return {"n": len(self.timescales)}

    def draw(self, seed: int) -> tuple[Step, Tensor, State]:
        """Leaky units, randomly connected, and bits."""
        random = torch.Generator().manual_seed(seed)
        W = torch.randn(5, 5, generator=random) * 0.3

        def step(x: Tensor, state: State) -> tuple[Tensor, State]:
            h = 0.5 * state[0] + 0.5 * torch.tanh(state[0] @ W + x)
            return h, (h,)

        return step, torch.randint(0, 2, (80, 4, 5), generator=random).float(), (torch.zeros(4, 5),)


@torch.no_grad()
def run(step: Step, inputs: Sequence[Tensor] | Tensor, state: State) -> Tensor:
    """What the first tensor of the state is after each step: (T, trials, units), in float64."""
    seen = []
    for x in inputs:
        state = step(x, state)[1]
        seen.append(state[0].detach().flatten(1).double().cpu())
    return torch.stack(seen)


def autocorrelation(activity: Tensor, lags: int) -> Tensor:
    """C(0..lags) of each unit, averaged over trials: (T, trials, units) -> (units, lags + 1); not normalised.

    >>> autocorrelation(torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1), 2).tolist()
    [[1.0, -1.0, 1.0]]
    """
    T = len(activity)
    if not 0 <= lags < T:
        raise ValueError(f"lags={lags} does not fit {T} steps; choose 0 <= lags < {T}")
    centred = activity - activity.mean(0)
    power = torch.fft.rfft(centred, n=2 * T, dim=0).abs().square()  # twice as long: no lag wraps around
    sums = torch.fft.irfft(power, n=2 * T, dim=0)[: lags + 1].mean(1)  # (lags + 1, units)
    means: Tensor = sums / torch.arange(T, T - lags - 1, -1).to(sums).unsqueeze(1)
    return means.T


def autocorrelation_by_sums(activity: Tensor, lags: int) -> Tensor:
    """The same, lag by lag: the obvious form."""
    centred, T = activity - activity.mean(0), len(activity)
    return torch.stack([(centred[: T - k] * centred[k:]).mean(0).mean(0) for k in range(lags + 1)], 1)


def timescales(correlations: Tensor, *, longest: float = 100.0) -> Tensor:
    """The timescale of each unit (units,) from C(0..lags) (units, lags + 1), nan where C(0) is 0; at most `longest`.

    >>> k = torch.arange(20)
    >>> [round(float(tau), 3) for tau in timescales(torch.exp(-k / torch.tensor([[3.0], [8.0]])))]
    [3.0, 8.0]
    """
    correlations = correlations.double()
    scale = correlations[:, :1]
    moves = scale[:, 0] > STILL
    found = torch.full_like(scale[:, 0], torch.nan)
    if bool(moves.any()):
        fitted = fit(correlations[moves] / scale[moves], longest=longest)
        found[moves] = fitted.timescales(correlations.shape[1] - 1)
    return found


def fit(curves: Tensor, *, longest: float = 100.0, grid: int = 40, rounds: int = 60) -> Fit:
    """Least squares of one and of two exponentials for each row of `curves` (units, lags + 1)."""
    low, high = math.log(SHORTEST), math.log(longest)
    points = torch.linspace(low, high, grid, dtype=torch.float64)
    spacing, count = (high - low) / (grid - 1), curves.shape[1]
    every = points.expand(len(curves), -1).unsqueeze(-1)  # (units, grid, 1)
    one, residual_one = _refined(_search_one, curves, _search_one(curves, every)[0], spacing, (low, high), rounds)
    # two begin from the best pair of the grid, and from the best of the grid beside the one: valleys are long, and several
    pairs = points[torch.triu_indices(grid, grid, offset=1)].T.expand(len(curves), -1, -1)
    beside = torch.cat([one.unsqueeze(1).expand(-1, grid, -1), every], -1)
    ends = [
        _refined(_search_two, curves, _search_two(curves, places)[0], spacing, (low, high), rounds)
        for places in (pairs, beside)
    ]
    residuals, which = torch.stack([residual for _, residual in ends]).min(0)
    two = torch.where((which == 0).unsqueeze(1), ends[0][0], ends[1][0]).sort(1, descending=True).values
    p, q = _amplitudes(curves.unsqueeze(1), *_pair(two.unsqueeze(1), count))
    share = torch.where(p + q > 0, p / (p + q), 0.0).squeeze(1)
    return Fit(one.squeeze(1).exp(), two.exp(), share, residual_one, residuals)


def dimensionality(activity: Tensor, *, share: float = 0.9) -> int:
    """How many principal components hold that share of the variance of activity (..., units).

    >>> dimensionality(torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    1
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is no share of the variance; choose 0 < share <= 1")
    rows = activity.reshape(-1, activity.shape[-1]).double()
    held = torch.linalg.svdvals(rows - rows.mean(0)).square()
    if not bool(held.sum() > 0):
        raise ValueError("no unit ever changes, so there is no variance to share out; give activity that varies")
    return int((held.cumsum(0) / held.sum() < share - 1e-12).sum()) + 1


def _refined(
    search: Search, curves: Tensor, places: Tensor, spacing: float, bounds: tuple[float, float], rounds: int
) -> tuple[Tensor, Tensor]:
    """Pattern search from one place for each unit: to the best point around, or half as far where that is its own place."""
    steps = torch.linspace(-1, 1, 5, dtype=torch.float64)
    pattern = torch.cartesian_prod(*[steps] * places.shape[1]).view(-1, places.shape[1])
    width = torch.full((len(places), 1, 1), spacing, dtype=torch.float64)
    residuals = curves.new_zeros(len(curves))
    for _ in range(rounds):
        found, residuals = search(curves, (places.unsqueeze(1) + width * pattern).clamp(*bounds))
        stayed = (found == places).all(1).view(-1, 1, 1)
        width, places = torch.where(stayed, width / 2, width), found
    return places, residuals


def _search_one(curves: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the time constants exp(logs) (units, points, 1) of each unit, and its residual."""
    E = _decays(logs[..., 0], curves.shape[1])
    on, own = torch.einsum("uk,upk->up", curves, E), E.square().sum(-1)
    a = (on / own).clamp(0, 1).unsqueeze(-1)
    return _best(logs, (a * E - curves.unsqueeze(1)).square().sum(-1))


def _search_two(curves: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    """The best of the pairs exp(logs) (units, pairs, 2) of each unit, and its residual."""
    E, F = _pair(logs, curves.shape[1])
    y = curves.unsqueeze(1)
    p, q = _amplitudes(y, E, F)
    return _best(logs, (p.unsqueeze(-1) * E + q.unsqueeze(-1) * F - y).square().sum(-1))


def _amplitudes(y: Tensor, E: Tensor, F: Tensor) -> tuple[Tensor, Tensor]:
    """The p, q that bring p E + q F closest to y.

    A least-squares problem on the triangle p, q >= 0, p + q <= 1: its solution is inside, or on one of three edges.
    """
    ee, ff, ef, ye, yf = E.square().sum(-1), F.square().sum(-1), (E * F).sum(-1), (y * E).sum(-1), (y * F).sum(-1)
    det, apart = ee * ff - ef.square(), ee + ff - 2 * ef
    solvable = det > 1e-12 * ee * ff
    p = torch.where(solvable, (ye * ff - yf * ef) / det, 0.0)
    q = torch.where(solvable, (yf * ee - ye * ef) / det, 0.0)
    inside = solvable & (p >= 0) & (q >= 0) & (p + q <= 1)
    along = torch.where(apart > 0, (ye - yf - ef + ff) / apart, 0.0).clamp(0, 1)  # p on the edge p + q = 1
    zero = torch.zeros_like(p)
    ps = torch.stack([torch.where(inside, p, zero), (ye / ee).clamp(0, 1), zero, along])
    qs = torch.stack([torch.where(inside, q, zero), zero, (yf / ff).clamp(0, 1), 1 - along])
    # the residual without |y|^2, which is the same for all
    best = (ps * (ps * ee - 2 * ye) + qs * (qs * ff - 2 * yf) + 2 * ps * qs * ef).argmin(0, keepdim=True)
    return ps.gather(0, best)[0], qs.gather(0, best)[0]


def _pair(logs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return _decays(logs[..., 0], count), _decays(logs[..., 1], count)


def _best(places: Tensor, residuals: Tensor) -> tuple[Tensor, Tensor]:
    least, at = residuals.min(1)
    return places[torch.arange(len(places)), at], least


def _decays(logs: Tensor, count: int) -> Tensor:
    return torch.exp(-torch.arange(count, dtype=torch.float64) / logs.exp().unsqueeze(-1))

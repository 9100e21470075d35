"""What is recalled against bytes of state: the front by brute force, equal parameters, seeds, the picture, the kept rows."""

from __future__ import annotations

import random

import pytest

from loci.lab import capacity, capacity_plot

torch = pytest.importorskip("torch")

from loci.lab.tasks import recollection

torch.set_num_threads(1)
ENTRANTS = {entrant.name: entrant for entrant in capacity.entrants()}


def row(of, size, state_bytes, *, mqar, needle=(50.0,)):
    recalled = {"mqar": mqar, "needle": needle}
    return {
        "of": f"mixer/{of}", "size": size, "options": {}, "state_bytes": state_bytes, "parameters": 60_000, "steps": 600,
        "unit": "percent", "recalled": {task: {str(k): share for k, share in enumerate(shares)} for task, shares in recalled.items()},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_beats(seed):
    draw = random.Random(seed)
    rows = [row(f"m{i}", "small", draw.randint(1, 6), mqar=[float(draw.randint(1, 6))]) for i in range(12)]
    points = {(one["state_bytes"], one["recalled"]["mqar"]["0"]) for one in rows}
    best = {one for one in points if not any(b <= one[0] and r >= one[1] and (b, r) != one for b, r in points)}
    found = [(one["state_bytes"], capacity.recalled(one, "mqar")) for one in capacity.front(rows, "mqar")]
    assert found == sorted(best)


def test_seeds_are_added_to_a_row_and_measured_anew_in_place():
    first, second = row("a", "small", 8, mqar=[1.0]), row("a", "small", 8, mqar=[1.0])
    second["recalled"] = {"mqar": {"1": 5.0}, "needle": {"0": 9.0}}
    both = capacity.joined(capacity.joined(None, first), second)
    assert both["recalled"] == {"mqar": {"0": 1.0, "1": 5.0}, "needle": {"0": 9.0}}
    assert (capacity.recalled(both, "mqar"), capacity.recalled(both, "needle")) == (3.0, 9.0)


def test_every_mixer_enters_in_sizes_that_differ():
    from loci.state import mixers

    assert {entrant.of.split("/")[1] for entrant in ENTRANTS.values()} == set(mixers())
    assert ENTRANTS["mixer/lstm, small"].options == {"n": 16}
    assert "mixer/base-conv, large" not in ENTRANTS  # nothing that it takes is told apart
    assert "window" not in ENTRANTS["mixer/atlas, large"].options


@pytest.mark.parametrize("name", ENTRANTS)
def test_all_models_are_of_one_size(name):
    """Within what a channel more in both maps would cost."""
    entrant = ENTRANTS[name]
    model = recollection.sized(entrant.entry, entrant.options, parameters=capacity.PARAMETERS)
    parameters = sum(param.numel() for param in model.parameters())
    assert 0 <= capacity.PARAMETERS - parameters < 2 * (2 * recollection.D + 1)


def test_a_mixer_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="has .* parameters; choose a smaller one for 1000"):
        recollection.sized("loci.state.lstm:LSTM", {"n": 64}, parameters=1000)


def test_what_was_before_is_heard_in_one_scan_as_in_steps():
    mixer = recollection.WithLast(4).double()
    x = torch.randn(2, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, (last,) = mixer.scan(x, mixer.initial_state(2))
    weight = mixer.last.weight
    due = torch.stack([x[:, t] + (x[:, t - 1] @ weight.T if t else 0.0) for t in range(7)], 1)
    assert torch.allclose(y, due, atol=1e-12)
    assert torch.equal(last, x[:, -1])
    assert torch.allclose(mixer.scan_by_steps(x, mixer.initial_state(2))[0], due, atol=1e-12)


@pytest.mark.parametrize("task", capacity.TASKS)
def test_a_seed_decides_and_no_other_chance_is_touched(task):
    entrant, before = ENTRANTS["mixer/gru, small"], torch.random.get_rng_state()
    one, two = (capacity.measure(entrant, 5, tasks=[task], steps=2) for _ in range(2))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), before)
    assert 0 <= one["recalled"][task]["5"] <= 100
    assert one["state_bytes"] == 2 * (32 + 16) * 4  # two layers, what was last heard and the units


def test_what_forgets_nothing_learns_the_needle_and_a_mixer_without_memory_does_not():
    seen = recollection.recollected(
        "loci.state.attention:Attention", {"window": 64}, "needle", 3, parameters=60_000, steps=250
    )
    none = recollection.recollected("loci.state.short_conv:BaseConv", {}, "needle", 3, parameters=60_000, steps=60)
    assert seen.recalled > 90
    assert none.recalled < 20  # one in thirty by chance


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture_names_every_row_and_is_the_same_again(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    rows = [
        row("lstm", "small", 100, mqar=[10.0, 20.0], needle=[30.0, 30.0]),
        row("lstm", "large", 300, mqar=[40.0, 50.0], needle=[20.0, 20.0]),
        row("attention", "large", 9000, mqar=[100.0, 100.0], needle=[100.0, 100.0]),
    ]
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    best = [[(one["of"], one["size"]) for one in capacity_plot.draw(path, rows=rows)] for path in paths][0]
    small, large, full = ("mixer/lstm", "small"), ("mixer/lstm", "large"), ("mixer/attention", "large")
    assert best == [small, large, full, small, full]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    if suffix == ".svg":
        assert all(first.count(name) == 1 for name in (b"<!-- lstm, small  15 -->", b"<!-- lstm, large  20 -->"))


def test_a_picture_of_nothing_or_of_no_known_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="run scripts/capacity"):
        capacity_plot.draw(tmp_path / "a.svg", rows=[])
    with pytest.raises(ValueError, match="no suffix that says its form"):
        capacity_plot.draw(tmp_path / "a.gif", rows=[row("lstm", "small", 1, mqar=[1.0])])
    assert list(tmp_path.iterdir()) == []


def test_every_kept_row_is_of_a_mixer_and_whole():
    rows = capacity.kept()
    assert len({(one["of"], one["size"]) for one in rows}) == len(rows)
    for one in rows:
        entrant = ENTRANTS[f"{one['of']}, {one['size']}"]
        assert one["options"] == dict(entrant.options)
        assert one["steps"] == capacity.STEPS
        assert set(one["recalled"]) == set(capacity.TASKS)
        seeds = [set(shares) for shares in one["recalled"].values()]
        assert seeds[0] == seeds[1] <= {str(seed) for seed in capacity.SEEDS}

"""Ballet with and without a stage: what is shown is enough to answer, chance is chance, and the rules are kept."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import refused
from loci.lab.tasks import ballet
from loci.lab.tasks.ballet_room import DANCES, OFFSETS, SHAPES, WATCH, BalletRoom

torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Without a stage


@pytest.mark.parametrize("n", [4, 16])
def test_who_finds_the_dancer_reads_the_answer_off_its_event(n):
    random = generator()
    known = ballet.dancers(random)
    assert torch.allclose(known.norm(dim=1), torch.ones(32))
    shown, asked, answer = ballet.episodes(50, n, known, random)
    assert shown.shape == (50, 24 * n, ballet.W)
    for row in range(50):
        alike = shown[row, :, :16] @ asked[row, :16]
        (times,) = torch.nonzero(alike > 1 - 1e-5, as_tuple=True)
        assert len(times) == 12, "each dancer is seen in one event"
        assert times.tolist() == list(range(int(times[0]), int(times[0]) + 12))
        step = int(asked[row, 24:].argmax())
        assert int(shown[row, times[step], 16:24].argmax()) == int(answer[row])


def test_moves_and_questions_are_drawn_evenly():
    shown, asked, answer = ballet.episodes(4000, 4, ballet.dancers(generator()), generator(1))
    assert float((shown[..., 16:24].mean((0, 1)) - 1 / 8).abs().max()) < 0.005
    assert float((asked[:, 24:].mean(0) - 1 / 12).abs().max()) < 0.02
    assert float((torch.bincount(answer, minlength=8) / 4000 - 1 / 8).abs().max()) < 0.02


def test_the_order_of_moves_is_nothing_to_the_twin_and_something_to_the_memory():
    changed = []
    for kind in (ballet.HCAM, ballet.SummaryOnly):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            mixer = kind(8, M=2, C=4, k=1).double()
        chunk = torch.randn(1, 4, 8, generator=generator(), dtype=torch.float64)
        asked = torch.randn(1, 8, generator=generator(1), dtype=torch.float64)
        one, two = (mixer.step(asked, mixer.remember(chunk[:, order]))[0] for order in ([0, 1, 2, 3], [2, 0, 3, 1]))
        changed.append(float((one - two).detach().abs().max()))
    assert changed[0] > 1e-3
    assert changed[1] < 1e-12


# In the room


def test_thirteen_dances_of_sixteen_moves_are_distinct_closed_and_near():
    assert len(set(DANCES)) == 13
    for dance in DANCES:
        assert len(dance) == 16
        down = torch.tensor([OFFSETS[move] for move in dance]).cumsum(0)
        assert down[-1].tolist() == [0, 0]
        assert int(down.abs().max()) == 1


def played(room, choose):
    """One episode: what was seen, the reward, and how many moments it took."""
    views, over, reward = [room.reset()], False, 0.0
    while not over:
        seen, reward, over = room.step(choose(views))
        views.append(seen)
    return views, reward, len(views) - 1


def bodies(view):
    """Where dancers are in what is seen, by shape."""
    return {int(shape): (int(row), int(column)) for shape, row, column in view[1 : 1 + SHAPES].nonzero()}


def watchful(views):
    """Takes note of who moved how, and walks to the one whose dance is named: from what is seen alone."""
    told = views[-1].told
    if told == WATCH:
        return 0
    noted = {shape: [] for shape in bodies(views[0].view)}
    for one, two in zip(views, views[1:], strict=False):
        if one.told == WATCH:
            was, now = bodies(one.view), bodies(two.view)
            for shape in noted:
                step = (now[shape][0] - was[shape][0], now[shape][1] - was[shape][1])
                noted[shape] += [OFFSETS.index(step)] if step != (0, 0) else []
    (found,) = (shape for shape, moves in noted.items() if tuple(moves) == DANCES[told - 1])
    row, column = bodies(views[-1].view)[found]
    way = tuple((axis > 5) - (axis < 5) for axis in (row, column))
    return OFFSETS.index(way)


@pytest.mark.parametrize(("dancers", "delay"), [(1, 0), (2, 3), (8, 16)])
def test_who_remembers_the_dances_is_always_rewarded(dancers, delay):
    room = BalletRoom(dancers, delay=delay, random=generator())
    for _ in range(10):
        views, reward, moments = played(room, watchful)
        assert reward == 1.0
        assert moments == dancers * (16 + delay) + 3
        assert [seen.told == WATCH for seen in views].count(True) == dancers * (16 + delay)
        assert all(int(seen.view.sum()) == 40 + 2 * dancers for seen in views[: dancers * (16 + delay)])


def test_a_random_walk_is_rewarded_once_in_as_many_as_there_are_dancers():
    room, random = BalletRoom(4, delay=0, random=generator(3)), generator(4)
    rewards = []
    while len(rewards) < 400:
        _, reward, moments = played(room, lambda views: int(torch.randint(8, (), generator=random)))
        if moments < 4 * 16 + 64 or reward:  # touched someone
            rewards.append(reward)
    assert abs(sum(rewards) / 400 - 1 / 4) < 4 * (0.25 * 0.75 / 400) ** 0.5


def test_the_same_seed_is_the_same_ballet_and_another_is_another():
    one, two, other = (BalletRoom(8, random=generator(seed)) for seed in (1, 1, 2))
    for _ in range(3):
        views = [room.reset().view for room in (one, two, other)]
        assert torch.equal(views[0], views[1])
        assert not torch.equal(views[0], views[2])


def test_walls_hold_the_agent_and_it_is_still_while_it_watches():
    room = BalletRoom(1, delay=0, random=generator())
    room.reset()
    for _ in range(16):
        room.step(0)
        assert room.agent == (5, 5)
    room.places = [(8, 8)]
    for _ in range(8):
        room.step(0)
    assert room.agent == (1, 5)
    assert room.seen().view[0, :4].sum() == 0  # nothing beyond the wall


def test_what_is_no_room_and_no_move_is_refused():
    refused(lambda: BalletRoom(9, random=generator()), "dancers=9", "8")
    refused(lambda: BalletRoom(2, delay=-1, random=generator()), "delay=-1")
    room = BalletRoom(1, delay=0, random=generator())
    refused(lambda: room.step(0), "reset")
    room.reset()
    refused(lambda: room.step(8), "action=8")

"""Questions about bits and their curricula: answers of strings, losses by hand, and networks that are delay lines."""

from __future__ import annotations

import copy
import itertools
import math

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.lab.tasks import curriculum as lab
from loci.lab.tasks.bits import MATCH, PARITY, drawn, length, matches, parity, stream
from loci.state.lstm import LSTM
from loci.state.timescales import EmergentTimescales

torch.set_num_threads(1)
DOUBLE = torch.float64


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The questions (check 2)


def test_answers_are_those_of_strings_for_every_sequence_of_ten_bits():
    texts = ["".join(text) for text in itertools.product("01", repeat=10)]
    bits = torch.tensor([[int(letter) for letter in text] for text in texts])
    for N in range(1, 11):
        odd = [text[-N:].count("1") in (1, 3, 5, 7, 9) for text in texts]
        same = [text[len(text) - N] == text[9] for text in texts]
        assert parity(bits, N).tolist() == odd
        assert matches(bits, N).tolist() == same
    for N in (0, 11):
        with pytest.raises(ValueError, match=rf"N={N} does not fit sequences of 10 bits; choose 1 <= N <= 10"):
            parity(bits, N)


def test_lengths_and_rates_are_the_papers():
    random = generator()
    assert {length(3, random=random) for _ in range(400)} == set(range(5, 14))
    even = drawn(MATCH, 4000, N=20, random=random).double()
    assert float(even.mean()) == pytest.approx(0.5, abs=0.01)
    rates = drawn(PARITY, 4000, N=40, random=random).double().mean(1)
    assert float(rates.std()) == pytest.approx(math.sqrt(1 / 12), abs=0.03)  # uniform rates, and some more for the draw
    bits, answers = next(stream(PARITY, 6, Ns=(2, 5), random=random))
    assert answers.shape == (2, 6)
    assert 7 <= bits.shape[1] < 22


# Curricula (check 4)


def test_the_loss_is_the_sum_over_heads_and_of_one_head_its_own():
    logits, answers = normal(3, 7, 2), (normal(3, 7, seed=2) > 0).long()
    each = [nn.functional.cross_entropy(logits[i], answers[i]) for i in range(3)]
    torch.testing.assert_close(lab.loss(logits, answers), sum(each))
    torch.testing.assert_close(lab.loss(logits[:1], answers[:1]), each[0])


def test_multi_head_training_is_single_head_training_while_there_is_one_head():
    recipe = lab.Recipe(batch=16, epoch=50, tests=1)
    ends = []
    for curriculum in (lab.SINGLE, lab.MULTI, lab.fixed(2), lab.sliding(1)):
        network = lab.started(EmergentTimescales, 0, n=8)
        lab.train(network, PARITY, curriculum=curriculum, steps=20, random=generator(), recipe=recipe)
        ends.append(torch.cat([param.detach().flatten() for param in network.parameters()]))
    assert all(torch.equal(end, ends[0]) for end in ends)


def test_curricula_go_on_as_they_should():
    def course(curriculum):
        Ns = [curriculum.first]
        for _ in range(3):
            Ns.append(curriculum.after(Ns[-1]))
        return Ns

    assert course(lab.SINGLE) == [(2,), (3,), (4,), (5,)]
    assert course(lab.MULTI) == [(2,), (2, 3), (2, 3, 4), (2, 3, 4, 5)]
    assert course(lab.sliding(3)) == [(2, 3, 4), (3, 4, 5), (4, 5, 6), (5, 6, 7)]
    assert course(lab.fixed(6)) == [(6,)] * 4
    with pytest.raises(ValueError, match="width=0"):
        lab.sliding(0)


def shift_register(n=6):
    """A delay line: with time constants of 1, unit i holds the bit of i moments ago."""
    network = lab.started(EmergentTimescales, 0, n=n, largest=4).double()
    with torch.no_grad():
        for param in network.parameters():
            param.zero_()
        network.cell.tau.fill_(1.0)
        network.cell.inward.weight[0] = 1.0
        for i in range(1, n):
            network.cell.recurrent.weight[i, i - 1] = 1.0
    return network


class LastBit:
    """A question whose answer is a bit that was, so that a linear head on a delay line knows it."""

    answer = staticmethod(lambda bits, N: bits[..., -N])
    balanced = True


def delay_network():
    network = shift_register()
    with torch.no_grad():
        for N in (2, 3, 4):
            network.head(N).weight[1, N - 1] = 1.0
            network.head(N).bias[0] = 0.5
    return network


def test_a_delay_line_is_right_until_its_units_are_ablated():
    network = delay_network()
    Ns = (2, 3, 4)

    def accuracies(made):
        return lab.accuracy(made, LastBit, Ns=Ns, random=generator(), batches=4)

    assert accuracies(network).tolist() == [1, 1, 1]
    assert lab.retention(network, LastBit, reached=4, random=generator()) == 1
    assert lab.known(network, LastBit, reached=4, random=generator()) == 3
    before = copy.deepcopy(network.state_dict())
    cut = accuracies(lab.ablated(network, [2]))  # what N = 2 needs is before the cut, what 3 and 4 need is not
    assert cut[0] == 1
    assert all(0.4 < float(right) < 0.6 for right in cut[1:])
    assert accuracies(lab.ablated(network, [4, 5])).tolist() == [1, 1, 1]
    assert lab.known(lab.ablated(network, [2]), LastBit, reached=4, random=generator()) == 1
    assert all(torch.equal(network.state_dict()[name], part) for name, part in before.items())
    with pytest.raises(ValueError, match=r"units=\[6\] are none of 6"):
        lab.ablated(network, [6])


def test_ablating_a_gated_cell_silences_all_of_its_gates():
    network = lab.started(LSTM, 0, n=4, largest=3)
    made = lab.ablated(network, [1])
    rows = [1, 5, 9, 13]
    assert not made.cell.recurrent.weight[rows].any()
    assert not made.cell.inward.weight[rows].any()
    assert not made.cell.recurrent.weight[:, 1].any()
    left = [row for row in range(16) if row not in rows]
    assert torch.equal(made.cell.inward.weight[left], network.cell.inward.weight[left])


def test_perturbations_have_the_size_they_are_given():
    network = lab.started(EmergentTimescales, 0, n=20).double()
    W, tau = network.cell.recurrent.weight.detach(), network.cell.tau.detach()
    moved = lab.perturbed(network, 0.3, random=generator()).cell
    slow = lab.slowed(network, 0.3, random=generator()).cell
    assert float((moved.recurrent.weight - W).detach().norm() / W.norm()) == pytest.approx(0.3)
    assert torch.equal(moved.tau, tau)
    assert float((slow.tau - tau).detach().norm() / tau.norm()) == pytest.approx(0.3)
    assert bool((slow.tau >= tau).all())
    assert torch.equal(slow.recurrent.weight, W)
    mixed = lab.rewired(network, random=generator()).cell.recurrent.weight.detach()
    assert torch.equal(mixed.diagonal(), W.diagonal())
    assert torch.equal(mixed.flatten().sort().values, W.flatten().sort().values)
    assert not torch.equal(mixed, W)


def test_the_slowest_units_come_first_and_fixed_time_constants_stay():
    network = lab.started(EmergentTimescales, 0, n=4)
    with torch.no_grad():
        network.cell.tau.copy_(torch.tensor([2.0, 0.1, 5.0, 1.5]))
    assert lab.slowest(network, 4) == [2, 0, 3, 1]
    lab.held(network, 1.0)
    lab.train(network, PARITY, curriculum=lab.MULTI, steps=5, random=generator(), recipe=lab.Recipe(batch=8, epoch=9))
    assert network.cell.tau.tolist() == [1.0] * 4
    with pytest.raises(TypeError, match="LSTM has no time constants"):
        lab.slowest(lab.started(LSTM, 0, n=4), 2)


def test_a_delay_line_learns_new_heads_alone_and_history_keeps_what_it_was():
    network = delay_network()
    network.cell.requires_grad_(False)
    with torch.no_grad():
        network.head(4).weight.zero_()
    cell = copy.deepcopy(network.cell.state_dict())
    recipe = lab.Recipe(batch=64, epoch=100, tests=2, rate=0.5)
    history = lab.train(network, LastBit, curriculum=lab.fixed(4), steps=1000, random=generator(), recipe=recipe)
    assert history.reached == 4
    assert history.steps < 1000  # there is nothing after the one N
    assert all(torch.equal(network.cell.state_dict()[name], part) for name, part in cell.items())
    (milestone,) = history.milestones
    then = lab.at(network, milestone)
    assert lab.known(then, LastBit, reached=4, random=generator()) == 3
    assert milestone.step == history.steps
    assert milestone.taus.tolist() == [1.0] * 6


def test_the_timescale_of_a_delay_line_driven_by_fair_bits_is_nearly_nothing():
    assert lab.network_timescale(delay_network(), random=generator(), T=1000) < 0.6


def test_training_on_matches_gets_somewhere():
    network = lab.started(EmergentTimescales, 0, n=32)
    history = lab.train(network, MATCH, curriculum=lab.MULTI, steps=600, random=generator(), recipe=lab.Recipe(batch=64, epoch=100, tests=4))  # fmt: skip
    assert history.reached >= 2
    assert [milestone.N for milestone in history.milestones] == list(range(2, history.reached + 1))

"""Energy: closed forms of the integral, a file tree for RAPL, studies on a simulated machine."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from loci.budget.energy.meter import Energy
from loci.budget.energy.sampler import recorded
from loci.budget.energy.sensors import RAPL, NoSensor
from loci.budget.energy.source import CPUTime, Simulated, source
from loci.budget.energy.study import study, turn
from loci.budget.energy.trace import KWH, Trace, carbon
from loci.core.errors import MissingExtra
from loci.core.rng import generator

# energy


def test_a_constant_power_and_a_ramp_are_integrated_exactly():
    """100 W for 36 s, and 0 to 100 W over 72 s: 0.001 kWh both."""
    assert Trace([0, 10, 36], [100, 100, 100]).joules() / KWH == 1e-3
    moments = np.sort(generator(0).uniform(0, 72, 30)).tolist()
    ramp = Trace([0, *moments, 72], [at * 100 / 72 for at in [0, *moments, 72]])
    assert ramp.joules() / KWH == pytest.approx(1e-3, abs=1e-12)


def test_idle_power_is_taken_off_and_watts_keep_it():
    trace = Trace([0, 10], [60, 100])
    assert trace.joules(idle=50) == 300
    assert trace.watts() == 80
    counted = Trace([5, 15], [1000, 1800], counts=True)
    assert counted.joules(idle=50) == 300
    assert counted.watts() == 80


def test_carbon_is_energy_times_building_times_grid():
    assert carbon(2 * KWH, grid=0.4, pue=1.5) == pytest.approx(1.2)
    with pytest.raises(ValueError, match=r"pue=0\.9"):
        carbon(1.0, grid=0.4, pue=0.9)


@pytest.mark.parametrize(
    ("seconds", "values"),
    [([0], [1]), ([0, 1], [1]), ([1, 0], [1, 1]), ([0, math.nan], [1, 1]), ([0, 1], [1, math.inf])],
)
def test_what_is_no_trace_is_refused(seconds, values):
    with pytest.raises(ValueError, match="give"):
        Trace(seconds, values)


def test_a_thread_samples_while_the_run_goes_on():
    """A ramp's integral is the same from whatever moments it is sampled at."""
    seen = threading.Event()
    counted = []

    def ramp(at):
        counted.append(at)
        if len(counted) > 6:
            seen.set()
        return 2 * at

    machine = Simulated(ramp)
    meter = Energy([machine], every=0.001)

    def run():
        while not seen.wait(0.001):
            machine.clock.tick(1.0)

    reading = meter.read(run)
    assert meter.shapes()["S"] >= 7
    assert reading.value == pytest.approx(meter.seconds() ** 2 / KWH)


def test_a_sensor_that_fails_between_samples_is_not_silent():
    calls = []
    failed = threading.Event()

    def failing(at):
        calls.append(at)
        if len(calls) > 1:
            failed.set()
            raise OSError("the sensor is gone")
        return 1.0

    with pytest.raises(OSError, match="gone"):
        Energy([Simulated(failing)], every=0.001).read(failed.wait)


def test_the_error_of_a_run_comes_before_that_of_a_sensor():
    def failing(at, calls=[]):
        calls.append(at)
        if len(calls) > 1:
            raise OSError("the sensor is gone")
        return 1.0

    def run():
        raise KeyError("the run")

    with pytest.raises(KeyError), recorded([Simulated(failing)], every=None):
        run()


def test_rest_is_taken_off_by_later_readings():
    machine = Simulated(lambda at: 30.0 if at < 100 else 130.0)
    meter = Energy([machine], every=None)
    assert meter.rest(50.0, wait=machine.clock.tick) == {"simulated": 30.0}
    machine.clock.tick(50.0)
    assert meter.read(lambda: machine.clock.tick(36.0)).value == pytest.approx(1e-3)
    assert meter.watts() == 130
    assert meter.carbon(grid=0.5, pue=1.2) == pytest.approx(6e-4)
    with pytest.raises(ValueError, match="no time went by"):
        meter.rest(1.0, wait=lambda seconds: None)


def test_sensors_add_up_and_the_weakest_word_counts():
    one = Simulated(100.0)
    other = Simulated(50.0)
    other.clock, other.name = one.clock, "beside"
    meter = Energy([one, other], every=None, idle={"beside": 50.0})
    assert meter.read(lambda: one.clock.tick(36.0)).value == pytest.approx(1e-3)
    assert meter.watts() == 150
    cpu = Energy([CPUTime(65.0)], every=None).read(lambda: sum(range(100_000)))
    assert cpu.how == "estimated"
    assert cpu.value >= 0


@pytest.mark.parametrize(
    ("sources", "word"),
    [
        ([], "at least one"),
        ("rapl", "list"),
        (["wind"], "unknown"),
        (["simulated:1", "simulated:2"], "repeat"),
        (["simulated:1", "cpu:65"], "clocks"),
    ],
)
def test_sources_that_cannot_be_metered_are_refused(sources, word):
    with pytest.raises(ValueError, match=word):
        Energy(sources)


# sensors


def tree(root, energies, *, largest=1000):
    for place, (label, energy) in energies.items():
        zone = root / place
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(f"{label}\n")
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text(f"{largest}\n")


def test_rapl_sums_package_and_memory_and_goes_on_when_a_counter_starts_anew(tmp_path):
    """A counter that goes from max - 10 to 5 has gone 15; cores lie within the package, and a second view repeats it."""
    package = "intel-rapl:0"
    start = {
        package: ("package-0", 990),
        f"{package}/intel-rapl:0:0": ("core", 7),
        f"{package}/intel-rapl:0:1": ("dram", 100),
        "intel-rapl-mmio:0": ("package-0", 990),
        "intel-rapl:1": ("package-1", 3),
    }
    tree(tmp_path, start)
    sensor = RAPL(root=tmp_path)
    assert sensor.value(0.0) == 0
    tree(tmp_path, {package: ("package-0", 5), f"{package}/intel-rapl:0:1": ("dram", 120)})
    assert sensor.value(0.0) == pytest.approx(35e-6)
    tree(tmp_path, {package: ("package-0", 4)})
    assert sensor.value(0.0) == pytest.approx((35 + 999) * 1e-6)
    with pytest.raises(NoSensor, match="package-2"):
        RAPL(package=2, root=tmp_path)


def test_a_machine_without_an_nvidia_library_or_driver_says_so():
    try:
        watts = source("nvml").value(0.0)
    except (MissingExtra, NoSensor) as error:
        said = str(error)
    else:
        said = f"nvml:0 draws {watts} W" if watts > 0 else ""
    assert "loci[energy]" in said or "nvml:0" in said


# studies


def simulated(watts):
    """A machine whose power the running mode sets."""
    now = [0.0]
    machine = Simulated(lambda at: now[0])
    meter = Energy([machine], every=None)

    def mode(name, seconds):
        def train(seed):
            noise = generator(seed, name).normal(0, 5)
            now[0] = watts[name] + noise
            meter.sample()
            machine.clock.tick(seconds)
            meter.sample()
            return 0.9

        return train

    return meter, mode


def test_lower_power_for_longer_is_more_energy():
    meter, mode = simulated({"fp32": 200.0, "mixed": 150.0})
    found = study({"fp32": mode("fp32", 36.0), "mixed": mode("mixed", 72.0)}, meter, repeats=6)
    assert found.compare("fp32", "mixed", "watts").verdict == "lower"
    assert found.compare("fp32", "mixed", "kwh").verdict == "higher"
    assert found.compare("fp32", "mixed", "score").verdict == "not significant"
    assert np.mean(found.of("fp32", "kwh")) == pytest.approx(0.002, rel=0.03)
    assert found.anova("watts").p < 0.05
    text = found.table(grid=0.4)
    assert "mixed against fp32, watts: -" in text
    assert "not significant" in text
    assert "energy is computed" in text


def test_modes_take_turns_warm_up_is_thrown_away_and_blocks_share_seeds():
    ran = []
    meter = Energy(["simulated:1"], every=None)

    def mode(name):
        return lambda seed: (ran.append((name, seed)), meter.clock.tick(1.0), 0.0)[2]

    found = study({name: mode(name) for name in "abc"}, meter, repeats=3, warmup=1, seed=7)
    assert ran == [(name, 7 + block) for block in range(4) for name in turn("abc", block)]
    assert [run.block for run in found.runs] == [1] * 3 + [2] * 3 + [3] * 3
    assert {"".join(turn("abc", block)) for block in range(3)} == {"abc", "bca", "cab"}
    walled = found.walled(list(range(9)))
    assert walled.of("b", "wall") == [0, 5, 7]
    with pytest.raises(ValueError, match="missing"):
        found.of("a", "wall")
    with pytest.raises(ValueError, match="did not run"):
        found.of("d", "kwh")
    with pytest.raises(ValueError, match="repeats=1"):
        study({"a": mode("a")}, meter, repeats=1)

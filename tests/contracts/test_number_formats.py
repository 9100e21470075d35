"""Every number format under every law of its kind."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from loci.budget.precision.checks import LAWS, format_cases
from loci.budget.precision.subjects import formats
from loci.core.checking import Case

torch.set_num_threads(1)
NAMES = set(formats())


@pytest.mark.parametrize("case", list(format_cases()), ids=lambda case: case.id)
def test_number_format_keeps_the_law(case: Case) -> None:
    case.run()


def test_there_are_formats_and_laws() -> None:
    assert {"float", "fixed-point", "integer", "mx", "block-float"} <= NAMES
    assert len({law.__name__ for law in LAWS}) == len(LAWS) > 10


@pytest.mark.parametrize("name", ["", ".floating", ".integer", ".mx", ".block_float", ".rounded_array", ".checks"])
def test_formats_do_not_load_torch(name) -> None:
    code = f"import sys, loci.budget.precision{name}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""The README's first screen runs, and prints what it says."""

import doctest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_runs_with_the_output_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(
        str(ROOT / "README.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    )
    assert tried >= 8
    assert failed == 0

"""`loci fit` on the command line: the table, JSON, exit codes, the picture, and training that is taken up again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

NANO = ("gpt:nano", "--batch", "2x16", "--device", "cpu", "--optimizer", "sgd", "--precision", "fp32")


def fit(*args):
    command = [sys.executable, "-m", "loci", "fit", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_table_and_picture(tmp_path):
    path = tmp_path / "step.svg"
    code, out, error = fit(*NANO, "--budget", "64MB", "--all", "--plot", path)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "gpt:nano: 858,880 parameters, planned for cpu, budget 64 MB"
    assert lines[1].split() == ["peak", "weights", "grads", "state", "activ.", "temp.", "work", "plan"]
    assert sum("sgd, fp32" in line for line in lines[2:-1]) >= 4, "1 and 2 parts, recomputed or not"
    assert "train with sgd, fp32" in out
    assert path.read_text("utf-8").lstrip().startswith("<?xml")


def test_json():
    code, out, _ = fit(*NANO, "--json")
    said = json.loads(out)
    assert code == 0
    assert said["best"]["optimizer"] == "sgd"
    assert {(row["checkpointing"], row["micro_batches"]) for row in said["plans"]} == {
        (again, parts) for again in (False, True) for parts in (1, 2)
    }


def test_nothing_fits_is_exit_code_1():
    code, out, error = fit(*NANO, "--budget", "4MB", "--json")
    assert (code, error) == (1, "")
    said = json.loads(out)
    assert said["best"] is None
    assert "the smallest budget that would do is" in said["advice"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["gpt:8b"], "preset 'gpt:8b' is unknown"),
        ([*NANO, "--budget", "1MB"], "is below the"),
        ([*NANO[:2], "4 by 4"], "batch='4 by 4' is not rows x tokens; give it as 4x1024"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(args, said):
    code, out, error = fit(*args)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert error.startswith("loci: ")
    assert said in error


def test_training_is_taken_up_where_it_was_cut(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 40, "utf-8")
    runs = {}
    for name, steps in (("cut", (2, 4)), ("whole", (4,))):
        for number in steps:
            code, out, error = fit(
                *NANO, "--train", text, "--steps", number, "--checkpoints", tmp_path / name, "--lr", "0.1", "--json"
            )
            assert (code, error) == (0, "")
            runs[name] = json.loads(out)
    assert runs["cut"] == runs["whole"]
    assert runs["whole"]["steps"] == 4
    assert 0.97 < runs["whole"]["peak"] / runs["whole"]["foreseen"] < 1.03
    assert sorted(path.name for path in (tmp_path / "whole").iterdir())[-1] == "step-000000004.pt"

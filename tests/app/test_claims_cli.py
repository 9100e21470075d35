"""`loci claim` over a room: its verdicts as a table, its picture from kept rows."""

import json
import subprocess
import sys

import pytest


def loci(*args):
    done = subprocess.run([sys.executable, "-m", "loci", *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_room_lists_the_verdicts_of_its_kinds_and_no_others():
    code, out, _ = loci("claim", "--room", "weights")
    assert code == 0
    assert "optimizer/galore " in out
    assert "scheme/" not in out
    rows = json.loads(loci("claim", "--room", "records", "--json")[1])
    assert "scheme/hipporag2" in {row["of"] for row in rows}
    assert {row["of"].split("/")[0] for row in rows} == {"scheme"}
    assert {row["verdict"] for row in rows} <= {"held", "not held", "not testable here", "not judged"}


def test_a_room_without_claims_is_exit_code_1():
    assert loci("claim", "--room", "ports")[0] == 1


@pytest.mark.parametrize(("room", "named"), [("weights", ("AdamW", "galore")), ("state", ("attention", "mlstm"))])
def test_the_picture_of_a_room_is_drawn_from_kept_rows(tmp_path, room, named):
    pytest.importorskip("matplotlib")
    code, out, error = loci("claim", "--room", room, "--plot", tmp_path / "front.svg", "--json")
    assert code == 0
    assert json.loads(out)
    assert "on the front are" in error
    drawn = (tmp_path / "front.svg").read_text("utf-8")
    assert all(name in drawn for name in named)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "give one of them"),
        (("galore", "--room", "weights"), "give one of them"),
        (("--room", "cellar"), "choose one of"),
        (("--room", "records", "--plot", "a.svg"), "no picture"),
        (("--room", "weights", "--plot", "a.gif"), "no suffix"),
        (("--room", "weights", "--plot", "/nowhere/a.svg"), "/nowhere"),
        (("galore", "--plot", "a.svg"), "give --room weights"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, said):
    code, out, error = loci("claim", *args)
    assert (code, out) == (2, "")
    assert error.startswith("loci: ")
    assert said in error
    assert error.count("\n") == 1

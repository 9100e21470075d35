"""One source of words: what a tool says of itself stands in the help of the command line."""

import os
import subprocess
import sys

import pytest

from loci.app.verbs import VERBS

COMMANDS = {"remember": "add", "feedback": "learn", "restore": "forget"}


@pytest.mark.parametrize("verb", VERBS.values(), ids=list(VERBS))
def test_a_tool_speaks_in_the_words_of_the_command_line(verb):
    done = subprocess.run(
        [sys.executable, "-m", "loci", COMMANDS.get(verb.name, verb.name), "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    shown = " ".join(done.stdout.split())
    schema = verb.schema("/")
    assert verb.says
    assert verb.says in shown
    for name, part in schema["properties"].items():
        assert part["description"], f"{verb.name} does not say what {name} is"
        assert part["description"] in shown, f"{verb.name} {name}"
    assert set(schema["required"]) <= set(schema["properties"])
    assert not {"file", "as_json", "scheme", "embedder"} & set(schema["properties"])


def test_a_held_scope_is_named_and_is_the_default():
    for verb in VERBS.values():
        scope = verb.schema("acme/ana")["properties"]["scope"]
        assert scope["default"] == "acme/ana"
        assert scope["description"].endswith("At or under acme/ana.")

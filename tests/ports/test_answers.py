"""Answers held against schemas, beside the reference validator of JSON schema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loci.core.errors import LLMError
from loci.ports.answers import mismatch, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 2.0, "a", "b", ""]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from("abc"), part, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["object", "array", "string", "boolean", "null", "number", "integer"])


def forms(part: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True),
            "enum": st.lists(st.sampled_from(["a", 1, None, True, [1], {"a": 1}]), min_size=1, max_size=3),
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "properties": st.dictionaries(st.sampled_from("abc"), part, max_size=2),
            "additionalProperties": part,
            "items": part,
            "anyOf": st.lists(part, min_size=1, max_size=2),
            "allOf": st.lists(part, min_size=1, max_size=2),
        },
    )


SCHEMAS = forms(st.recursive(st.booleans() | st.fixed_dictionaries({"type": KINDS}), forms, max_leaves=5))


@given(VALUES, SCHEMAS)
def test_agrees_with_the_reference_validator(value: Any, schema: dict[str, Any]) -> None:
    fits = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (mismatch(value, schema) is None) == fits


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        ({"age": "two"}, {"properties": {"age": {"type": "integer"}}}, "answer.age is a str where integer was asked"),
        ([1, [2, "x"]], {"items": {"type": ["integer", "array"], "items": {"type": "integer"}}}, "answer[1][1] is a str"),
        ({}, {"required": ["pet"]}, "answer lacks 'pet'"),
        ([True], {"enum": [[1], 1.0]}, "answer is [True] where one of [[1], 1.0] was asked"),
        ({"pet": 1}, {"additionalProperties": False}, "answer.pet was not asked for"),
        ({"next": {"next": 3}}, {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}}},
         "answer.next.next is a int where object was asked"),
    ],
)  # fmt: skip
def test_says_where(value: Any, schema: dict[str, Any], said: str) -> None:
    assert (mismatch(value, schema) or "").startswith(said)
    assert not jsonschema.Draft202012Validator(schema).is_valid(value)


def test_a_schema_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="asks for type 'text'"):
        mismatch("x", {"type": "text"})
    with pytest.raises(ValueError, match="put it under"):
        mismatch("x", {"$ref": "#/$defs/none"})


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "[" * 50_000, "", "{'a': 1}", "```json\n[1\n```"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(LLMError, match="is not JSON"):
        read(text, {}, who="example")


def test_a_fence_is_taken_off() -> None:
    assert read('\n```json\n{"a": [1]}\n```\n', {"type": "object"}, who="example") == {"a": [1]}

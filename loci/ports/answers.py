"""What a language model was asked and what it answered: messages checked, JSON held against its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loci.core.errors import LLMError
from loci.core.ports import Message

Schema = Mapping[str, Any]

_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)
_SHOWN = 120  # characters of an answer in an error
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool)
    and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())),
}


def chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as plain dicts; TypeError or ValueError unless each has a role and content in text.

    >>> chat([{"role": "user", "content": "hello"}])
    [{'role': 'user', 'content': 'hello'}]
    """
    if isinstance(messages, str | bytes | Mapping):
        raise TypeError(
            f"messages is a {type(messages).__name__}; give a list such as [{{'role': 'user', 'content': 'hello'}}]"
        )
    found = [dict(message) if isinstance(message, Mapping) else message for message in messages]
    if not found:
        raise ValueError("messages is empty; give at least one, such as {'role': 'user', 'content': 'hello'}")
    for place, message in enumerate(found):
        if not isinstance(message, dict) or not all(isinstance(message.get(part), str) for part in ("role", "content")):
            raise TypeError(f"messages[{place}] lacks a 'role' or 'content' in text; give {{'role': ..., 'content': ...}}")
    return found


def parse(text: str) -> Any:
    """Decode JSON by the standard library; ValueError when it is not, nan and Infinity included."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read(text: str, schema: Schema, *, who: str, decode: Callable[[str], Any] = parse, note: str = "") -> Any:
    """Decode an answer and hold it against a schema; a ```json fence around it is taken off. LLMError otherwise.

    >>> read('{"pet": "kitten"}', {"type": "object", "required": ["pet"]}, who="example")
    {'pet': 'kitten'}
    """
    fenced = _FENCE.match(text.strip())
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    try:
        value = decode(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise LLMError(f"{who} answered {shown!r}, which is not JSON{note}; ask again or change the model") from error
    if wrong := mismatch(value, schema):
        raise LLMError(f"{who} answered {shown!r}, whose {wrong}{note}; ask again or change the model")
    return value


def mismatch(value: Any, schema: Schema | bool, *, root: Schema | None = None, at: str = "answer") -> str | None:
    """Where and how a value breaks a JSON schema, or None.

    Read are: type, enum, const, required, properties, additionalProperties, items, anyOf, oneOf (as anyOf), allOf and
    $ref into the schema itself. Lengths, ranges, patterns and formats are not: check those where they matter.

    >>> mismatch({"age": "two"}, {"type": "object", "properties": {"age": {"type": "integer"}}})
    'answer.age is a str where integer was asked'
    """
    if isinstance(schema, bool):
        return None if schema else f"{at} was not asked for"
    root = schema if root is None else root
    if "$ref" in schema:
        return mismatch(value, _refer(schema["$ref"], root), root=root, at=at)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"{at} is a {type(value).__name__} where {' or '.join(kinds)} was asked"
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        return f"{at} is {value!r} where {schema.get('enum', schema.get('const'))!r} was asked"
    for part in schema.get("allOf", []):
        if wrong := mismatch(value, part, root=root, at=at):
            return wrong
    choices = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    if choices and all(mismatch(value, part, root=root, at=at) for part in choices):
        return f"{at} fits none of the {len(choices)} forms that were asked"
    if isinstance(value, dict):
        return _object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        parts = (mismatch(part, schema["items"], root=root, at=f"{at}[{place}]") for place, part in enumerate(value))
        return next(filter(None, parts), None)
    return None


def _object(value: dict[str, Any], schema: Schema, root: Schema, at: str) -> str | None:
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            return f"{at} lacks {name!r}"
    parts = (mismatch(part, known.get(name, other), root=root, at=f"{at}.{name}") for name, part in value.items())
    return next(filter(None, parts), None)


def _refer(name: str, root: Schema) -> Schema:
    found: Any = root
    for part in name.removeprefix("#").strip("/").split("/"):
        if part and not (isinstance(found, Mapping) and part in found):
            raise ValueError(f"schema refers to {name!r}, which it does not hold; put it under '$defs'")
        found = found[part] if part else found
    return found  # type: ignore[no-any-return]

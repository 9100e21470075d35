"""What a language model was asked and what it answered: messages checked, JSON held against its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loci.core.errors import LLMError
from loci.core.ports import Message

Schema = Mapping[str, Any]
Part = Schema | bool

_FENCE = re.compile(r"^```(?:json)?\s*\n(.*)\n```$", re.DOTALL)
_MESSAGE = ("role", "content")
_SHOWN = 120  # characters of an answer in an error
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}


def chat(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as plain dicts; TypeError or ValueError unless each has a role and content in text.

    >>> chat([{"role": "user", "content": "hello"}])
    [{'role': 'user', 'content': 'hello'}]
    """
    if isinstance(messages, str | bytes | Mapping):
        kind = type(messages).__name__
        raise TypeError(f"messages is a {kind}; give a list such as [{{'role': 'user', 'content': 'hello'}}]")
    found = [dict(message) if isinstance(message, Mapping) else message for message in messages]
    if not found:
        raise ValueError("messages is empty; give at least one, such as {'role': 'user', 'content': 'hello'}")
    for place, message in enumerate(found):
        if not isinstance(message, dict) or not all(isinstance(message.get(part), str) for part in _MESSAGE):
            raise TypeError(f"messages[{place}] is not {{'role': text, 'content': text}}; give both as text")
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


def mismatch(value: Any, schema: Part, *, root: Schema | None = None, at: str = "answer") -> str | None:
    """Where and how a value breaks a JSON schema, or None; ValueError when the schema itself cannot be read.

    Read are: type, enum, const, required, properties, additionalProperties, items, anyOf, oneOf (as anyOf), allOf
    and $ref into the schema itself. Lengths, ranges, patterns and formats are not: check those where they matter.

    >>> mismatch({"age": "two"}, {"type": "object", "properties": {"age": {"type": "integer"}}})
    'answer.age is a str where integer was asked'
    """
    if isinstance(schema, bool):
        return None if schema else f"{at} was not asked for"
    root = schema if root is None else root
    if "$ref" in schema:
        return mismatch(value, _refer(schema["$ref"], root), root=root, at=at)
    checks = (_kind, _choice, _forms, _object, _items)
    return next(filter(None, (check(value, schema, root, at) for check in checks)), None)


def _kind(value: Any, schema: Schema, _root: Schema, at: str) -> str | None:
    asked = schema.get("type", [])
    kinds = [asked] if isinstance(asked, str) else asked
    for kind in kinds:
        if kind not in _TYPES:
            raise ValueError(f"schema asks for type {kind!r}; choose one of {', '.join(_TYPES)}")
    if not kinds or any(_TYPES[kind](value) for kind in kinds):
        return None
    return f"{at} is a {type(value).__name__} where {' or '.join(kinds)} was asked"


def _choice(value: Any, schema: Schema, _root: Schema, at: str) -> str | None:
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is None or any(_same(value, choice) for choice in choices):
        return None
    return f"{at} is {value!r} where one of {choices} was asked"


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _forms(value: Any, schema: Schema, root: Schema, at: str) -> str | None:
    wrongs = (mismatch(value, part, root=root, at=at) for part in schema.get("allOf", []))
    if wrong := next(filter(None, wrongs), None):
        return wrong
    forms = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    if forms and all(mismatch(value, part, root=root, at=at) for part in forms):
        return f"{at} fits none of the {len(forms)} forms that were asked"
    return None


def _object(value: Any, schema: Schema, root: Schema, at: str) -> str | None:
    if not isinstance(value, dict):
        return None
    known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", []):
        if name not in value:
            return f"{at} lacks {name!r}"
    wrongs = (mismatch(part, known.get(name, other), root=root, at=f"{at}.{name}") for name, part in value.items())
    return next(filter(None, wrongs), None)


def _items(value: Any, schema: Schema, root: Schema, at: str) -> str | None:
    if not isinstance(value, list):
        return None
    asked = schema.get("items", True)
    wrongs = (mismatch(part, asked, root=root, at=f"{at}[{place}]") for place, part in enumerate(value))
    return next(filter(None, wrongs), None)


def _refer(name: str, root: Schema) -> Part:
    found: Any = root
    for part in name.removeprefix("#").strip("/").split("/"):
        if part and not (isinstance(found, Mapping) and part in found):
            raise ValueError(f"schema refers to {name!r}, which it does not hold; put it under '$defs'")
        found = found[part] if part else found
    return found  # type: ignore[no-any-return]

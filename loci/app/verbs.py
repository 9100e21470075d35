"""The verbs as tools for a model: one table, described in the command line's own words, called with plain JSON."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from loci.app import answers, keep, learn, read, write
from loci.app.answers import Answer
from loci.core.errors import LociError
from loci.records import Memory
from loci.records.scope import ROOT, covers
from loci.records.scope import scope as checked

_JSON = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a verb takes: its type as JSON Schema, what it is for, and its default (None: none)."""

    name: str
    schema: dict[str, Any]
    says: str
    default: Any


@dataclass(frozen=True, slots=True)
class Verb:
    """A tool: a command whose words describe it, the parameters it takes of that command, and what it does."""

    name: str
    command: Callable[..., None]
    takes: tuple[str, ...]
    run: Callable[..., Answer]
    required: tuple[str, ...] = ()
    option: str = ""  # described by this option of the command, not by its docstring
    writes: bool = False
    destroys: bool = False
    authored: bool = False  # what it keeps has an author

    @property
    def says(self) -> str:
        """What it does: the option's help, or the first sentence of the command's (the next are about the terminal)."""
        if self.option:
            return parameters(self.command)[self.option].says
        return " ".join((inspect.getdoc(self.command) or "").split()).split(". ")[0].removesuffix(".") + "."

    def schema(self, scope: str) -> dict[str, Any]:
        """JSON Schema of its arguments for a caller who is held to a scope."""
        known = parameters(self.command)
        properties = {name: {**known[name].schema, "description": known[name].says} for name in self.takes}
        for name in self.takes:
            if known[name].default is not None:
                properties[name]["default"] = known[name].default
        if "scope" in properties:
            properties["scope"]["default"] = scope
            if scope != ROOT:
                properties["scope"]["description"] += f" At or under {scope}."
        return {
            "type": "object", "properties": properties, "required": list(self.required), "additionalProperties": False,
        }  # fmt: skip


VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("remember", write.add, ("text", "scope", "at", "known", "session", "source", "kind", "pin", "supersedes"),
             answers.remember, ("text",), writes=True, authored=True),
        Verb("recall", read.recall, ("question", "k", "scope", "as_of", "max_tokens", "why"), answers.recall, ("question",)),
        Verb("feedback", learn.learn, ("question", "ids", "reward", "scope"), answers.feedback, ("question", "ids"), writes=True),
        Verb("forget", keep.forget, ("ids", "scope", "erase"), answers.forget, ("ids",), writes=True, destroys=True),
        Verb("restore", keep.forget, ("ids", "scope"), answers.restore, ("ids",), option="restore", writes=True),
        Verb("history", read.history, ("id", "scope"), answers.history, ("id",)),
        Verb("diff", read.diff, ("before", "after", "scope"), answers.diff, ("before", "after")),
        Verb("stats", read.stats, ("scope",), answers.stats),
    )
}  # fmt: skip


def offered(*, read_only: bool) -> list[Verb]:
    """The verbs that may be called."""
    return [verb for verb in VERBS.values() if not (read_only and verb.writes)]


def parameters(command: Callable[..., None]) -> dict[str, Parameter]:
    """What a command of the command line takes, as it tells its users."""
    hints = get_type_hints(command, include_extras=True)
    found = {}
    for name, given in inspect.signature(command).parameters.items():
        base, *extras = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
        says = next((extra.help for extra in extras if isinstance(extra, ArgumentInfo | OptionInfo)), None)
        default = None if given.default is inspect.Parameter.empty else given.default
        found[name] = Parameter(name, _schema(base), says or "", default)
    return found


def _schema(of: Any) -> dict[str, Any]:
    if get_origin(of) in (Union, types.UnionType):
        of = next(part for part in get_args(of) if part is not types.NoneType)
    if get_origin(of) is list:
        return {"type": "array", "items": _schema(get_args(of)[0])}
    return {"type": _JSON.get(of, "string")}


def call(
    memory: Memory,
    name: str,
    arguments: Mapping[str, Any] | None,
    *,
    scope: str | None = None,
    read_only: bool = False,
    author: Mapping[str, Any] | None = None,
) -> Answer:
    """Do what a model asked for. The scope is the caller's limit: arguments may narrow it, never widen it.

    author: the `principal` and `trust` of what is remembered; a model cannot choose them.

    Raises ValueError, TypeError or LociError, with the one sentence that the model should read.
    """
    limit = checked(memory.scope if scope is None else scope)
    verbs = {verb.name: verb for verb in offered(read_only=read_only)}
    if name not in verbs:
        why = " here: this memory is read-only" if name in VERBS else ""
        raise ValueError(f"there is no tool {name!r}{why}; call one of {', '.join(verbs)}")
    given = _given(verbs[name], dict(arguments or {}), limit)
    if verbs[name].authored:
        given |= author or {}
    return verbs[name].run(memory, **given)


def attempt(
    memory: Memory,
    name: str,
    arguments: Mapping[str, Any] | None,
    *,
    scope: str | None = None,
    read_only: bool = False,
    author: Mapping[str, Any] | None = None,
) -> Answer:
    """As `call`, but what went wrong is an answer too: a sentence that the model can act on."""
    try:
        return call(memory, name, arguments, scope=scope, read_only=read_only, author=author)
    except (LociError, ValueError, TypeError, OSError) as error:
        return Answer(str(error), {"error": str(error)}, is_error=True)


def _given(verb: Verb, arguments: dict[str, Any], limit: str) -> dict[str, Any]:
    """Arguments checked against the schema, with defaults and a scope inside the limit."""
    known = parameters(verb.command)
    if unknown := [name for name in arguments if name not in verb.takes]:
        raise ValueError(f"{verb.name} takes no {unknown[0]!r}; give {', '.join(verb.takes)}")
    if missing := [name for name in verb.required if arguments.get(name) is None]:
        raise ValueError(f"{verb.name} was called without {missing[0]!r}; give it ({known[missing[0]].says})")
    given = {name: known[name].default for name in verb.takes}
    for name, value in arguments.items():
        if value is not None:
            given[name] = _checked(verb.name, known[name], value)
    asked = arguments.get("scope")
    given["scope"] = limit if asked is None else checked(asked)
    if not covers(limit, given["scope"]):
        raise ValueError(
            f"scope={asked!r} lies outside {limit!r}, to which this memory is held; give a scope at or under it"
        )
    return given


def _checked(verb: str, parameter: Parameter, value: Any) -> Any:
    """A value of the type that is asked for; one value where a list is asked for is a list of one."""
    if parameter.schema["type"] == "array":
        values = value if isinstance(value, list) else [value]
        return [_one(verb, parameter, parameter.schema["items"]["type"], part) for part in values]
    return _one(verb, parameter, parameter.schema["type"], value)


def _one(verb: str, parameter: Parameter, kind: str, value: Any) -> Any:
    right = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
    }[kind]
    if not right and kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON knows one kind of number
    if not right:
        shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
        raise TypeError(f"{verb} was given {parameter.name}={shown}; give {_ARTICLE[kind]} ({parameter.says})")
    return value


_ARTICLE = {"string": "text", "boolean": "true or false", "integer": "a whole number", "number": "a number"}

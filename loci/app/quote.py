"""Recalled memories in a conversation: found again and left out, so that they are not remembered a second time."""

from __future__ import annotations

import re

from loci.records.quote import BEGIN, END, passage, quote

__all__ = ["BEGIN", "END", "holds", "passage", "quote", "stripped"]

_PASSAGE = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
_SHELL = re.compile(r"</?[\w.-]+>")  # tags that a framework's template puts around a passage


def holds(text: str) -> bool:
    """Whether a text carries recalled memories, which must not be remembered a second time."""
    return _PASSAGE.search(text) is not None


def stripped(text: str) -> str:
    """A text without the passages of recalled memories in it, nor the empty tags left around them.

    >>> stripped(f"<memory>{passage(['1. ' + quote('Ana sails')])}</memory> Where is Ana?")
    'Where is Ana?'
    """
    if not holds(text):
        return text
    return _SHELL.sub("", _PASSAGE.sub("", text)).strip()

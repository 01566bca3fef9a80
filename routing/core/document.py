"""Changing one member of a JSON object in place: the rest of the bytes stays as the client sent them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

# Every token that matters for finding the members of the outermost object. Strings are taken whole.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


class Member(NamedTuple):
    """One member of the outermost object: its name, and where its value begins and ends."""

    name: str
    start: int
    end: int


def members(document: bytes) -> Iterator[Member]:
    """The members of the outermost object of a document that is known to be valid JSON, in order."""
    depth = 0
    name = b""
    start = -1
    for token in _TOKEN.finditer(document):
        first = document[token.start()]
        if first == 0x22:  # "
            if depth == 1 and start < 0:
                name = token.group()
        elif first in b"{[":
            depth += 1
        elif first in b"}]":
            depth -= 1
            if depth == 0 and start >= 0:
                yield _member(document, name, start, token.start())
                return
        elif depth == 1 and first == 0x3A:  # :
            start = token.end()
        elif depth == 1:
            yield _member(document, name, start, token.start())
            start = -1


def occurrences(document: bytes, name: str) -> list[Member]:
    """Every member of that name: more than one is legal JSON, and a way to say one thing and mean another."""
    return [member for member in members(document) if member.name == name]


def replace_member(document: bytes, name: str, value: bytes) -> bytes:
    """The document with the value of each member of that name replaced by `value` (JSON)."""
    pieces: list[bytes] = []
    done = 0
    for member in occurrences(document, name):
        pieces += (document[done : member.start], value)
        done = member.end
    return b"".join((*pieces, document[done:]))


def insert_member(document: bytes, name: str, value: bytes) -> bytes:
    """The document with one more member at its beginning. It must not have one of that name already."""
    brace = document.index(b"{") + 1
    comma = b"" if document[brace:].lstrip()[:1] == b"}" else b","
    return b"".join((document[:brace], as_json(name), b":", value, comma, document[brace:]))


def remove_member(document: bytes, name: str) -> bytes:
    """The document without any member of that name."""
    kept = [
        as_json(member.name) + b":" + document[member.start : member.end]
        for member in members(document)
        if member.name != name
    ]
    return b"{" + b",".join(kept) + b"}"


def as_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _member(document: bytes, name: bytes, start: int, end: int) -> Member:
    value = document[start:end]
    lead = len(value) - len(value.lstrip())
    return Member(msgspec.json.decode(name, type=str), start + lead, start + len(value.rstrip()))

"""Changing one member of a JSON object in place: the rest of the bytes stays as the client sent them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

import msgspec

# A string; and a container that holds no other: most of what a long conversation is made of. So each byte is looked at
# once or twice, by the regular expression's own loop and not by ours. What may have to be given back is repeated a
# bounded number of times, because each is remembered, and never possessively: before 3.11.5 Python then goes on behind
# what did not match (python/cpython#106052), and a second `model` stays unseen.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = rb'[{\[](?:[^"{}\[\]]++|%s){0,64}[}\]]' % _STRING
_NAME: Final = re.compile(rb"\s*(%s)\s*:" % _STRING, re.DOTALL)
# To what ends the value, or opens a container in it; the same inside a container, where a comma ends nothing.
_OF_VALUE: Final = re.compile(rb'(?:[^"{}\[\],]++|%s|%s){0,256}' % (_STRING, _FLAT), re.DOTALL)
_OF_CONTAINER: Final = re.compile(rb'(?:[^"{}\[\]]++|%s|%s){0,256}' % (_STRING, _FLAT), re.DOTALL)
_ENDS_CONTAINER: Final = frozenset({b"{", b"[", b"}", b"]", b""})
_ENDS_VALUE: Final = _ENDS_CONTAINER | {b","}

FEW_QUOTES: Final = 40
SHORT_BYTES: Final = 8 * 1024


class Member(NamedTuple):
    """One member of the outermost object: its name, and where its value begins and ends."""

    name: str
    start: int
    end: int


def members(document: bytes) -> Iterator[Member]:
    """The members of the outermost object of a document that is known to be valid JSON, in order."""
    position = document.find(b"{") + 1
    while (name := _NAME.match(document, position)) is not None:
        end = _end_of_value(document, name.end())
        yield _member(document, name[1], name.end(), end)
        position = end + 1


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


def mentions(document: bytes, word: bytes, *, any_case: bool = False) -> int:
    """How often a word stands in it, given with its quotes: 0, 1, or any number for more. As a name, or as a text.

    `any_case`: however it is spelt; the word itself is given in lower case. From one quote to the next, which is quick
    where a picture or a long prompt lies between them; what remains, of many strings, backwards, because CPython looks
    for bytes several times as fast that way.
    """
    if len(document) < SHORT_BYTES:
        return len(_in_any_case(word).findall(document)) if any_case else document.count(word)
    seen, length = 0, len(word)
    folded = bytes.lower if any_case else bytes
    at = document.find(b'"')
    for _ in range(FEW_QUOTES):
        if at < 0:
            return seen
        seen += folded(document[at : at + length]) == word
        at = document.find(b'"', at + 1)
    if at >= 0:
        rest = document[at:].lower() if any_case else document
        last = rest.rfind(word, 0 if any_case else at)
        if last >= 0:
            seen += 1 if rest.rfind(word, 0 if any_case else at, last) < 0 else 2
    return seen


def is_mentioned(document: bytes, word: bytes) -> bool:
    """Whether a word, given with its quotes, stands in it."""
    return (document.rfind(word) >= 0) if len(document) < SHORT_BYTES else mentions(document, word) > 0


@cache
def _in_any_case(word: bytes) -> re.Pattern[bytes]:
    """To look for it takes half the time of a copy in lower case."""
    return re.compile(re.escape(word), re.IGNORECASE)


def as_json(value: object) -> bytes:
    return msgspec.json.encode(value)


def _end_of_value(document: bytes, start: int) -> int:
    """Where the comma or the brace stands that ends the value."""
    depth = 0
    position = start
    while True:
        before, skip = position, _OF_CONTAINER if depth else _OF_VALUE
        position = skip.match(document, position).end()  # type: ignore[union-attr]  # it matches nothing, too
        found = document[position : position + 1]
        if position > before and found not in (_ENDS_CONTAINER if depth else _ENDS_VALUE):
            continue  # there is more than is skipped at once
        if found in (b"{", b"["):
            depth += 1
        elif depth == 0 or not found:
            return position
        else:
            depth -= 1
        position += 1


def _member(document: bytes, name: bytes, start: int, end: int) -> Member:
    value = document[start:end]
    lead = len(value) - len(value.lstrip())
    return Member(msgspec.json.decode(name, type=str), start + lead, start + len(value.rstrip()))

"""How a command fails: 1, it could not be done; 2, no node could be reached (SPEC-669176b2)."""

from __future__ import annotations


class CommandFailed(Exception):
    """The message is one line for the person at the terminal."""

    code = 1


class NotReachable(CommandFailed):
    code = 2

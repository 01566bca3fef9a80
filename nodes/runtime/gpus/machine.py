"""What the probes need of the machine, in one place, so that a test can stand in for any machine."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

COMMAND_TIMEOUT: Final = 5.0
# nvidia-smi under Windows' Linux is not always on the path.
_ELSEWHERE: Final = ("/usr/lib/wsl/lib",)


def load(name: str) -> Any | None:
    """An optional package; None where it is not installed or cannot be loaded."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):  # a package is here and its shared library is not
        return None


def run(command: Sequence[str]) -> str:
    """What a program writes; empty where it is not there, fails, or takes longer than five seconds."""
    path = shutil.which(command[0]) or shutil.which(command[0], path=":".join(_ELSEWHERE))
    if path is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  # no shell; the program and its arguments are ours
            [path, *command[1:]], capture_output=True, timeout=COMMAND_TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Machine:
    """`root` is where /proc and /sys begin."""

    system: str = field(default_factory=platform.system)  # Linux, Darwin, Windows
    architecture: str = field(default_factory=platform.machine)  # x86_64, arm64, AMD64
    root: Path = Path("/")
    load: Callable[[str], ModuleType | Any | None] = load
    run: Callable[[Sequence[str]], str] = run

    def read(self, path: Path) -> str:
        """The text of a small file of the kernel; empty where there is none, or none to be had."""
        try:
            return path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def number(self, path: Path) -> int | None:
        """The number in a small file of the kernel, decimal or 0x…"""
        try:
            return int(self.read(path), 0)
        except ValueError:
            return None

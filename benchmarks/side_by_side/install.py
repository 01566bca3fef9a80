"""The peers on this machine: each in an environment of its own under `.bench/`, made on demand and kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from typing import Final

from benchmarks.side_by_side.peers import Peer
from scripts import debian
from scripts.debian import NotInstalled, run
from tests.support.product import ROOT

CACHE: Final = ROOT / ".bench"
VERSION_FLAGS: Final = {"nginx": "-v", "haproxy": "-v", "wrk": "-v"}


def program_of(peer: Peer) -> str:
    """The peer's program, installed first if need be. Raises NotInstalled."""
    return debian.program(peer.program, peer.package) if peer.debian else from_pypi(peer)


def from_pypi(peer: Peer) -> str:
    place = CACHE / "peers" / re.sub(r"[^\w.=-]", "-", peer.package)
    program, done = place / "bin" / peer.program, place / ".done"
    if not done.exists():
        print(f"installing {peer.package} ...", flush=True)
        shutil.rmtree(place, ignore_errors=True)
        try:
            venv.create(place, with_pip=True)
            run(
                str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", peer.package
            )
            # So that a first start is no slower than a second one.
            run(str(place / "bin" / "python"), "-m", "compileall", "-q", "-j0", str(place / "lib"), check=False)
        except OSError as error:
            raise NotInstalled(f"{peer.package}: {error}") from error
        done.touch()
    return str(program)


def version_of(peer: Peer, program: str) -> str:
    """As the package's own metadata, or the program itself, says."""
    if not peer.debian:
        return peer.package.partition("==")[2]
    done = subprocess.run([program, VERSION_FLAGS[peer.program]], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def python_environment() -> dict[str, str]:
    """Of this process, less what would make a peer slower than its users see it: code compiled anew at each import."""
    left_out = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in left_out}


def our_version() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--tags"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"{done.stdout.strip() or 'unknown'} on Python {sys.version.split()[0]}"

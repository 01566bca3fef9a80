"""The peers on this machine: each in an environment of its own under `.bench/`, made on demand and kept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.side_by_side.peers import Peer
from tests.support.product import ROOT

CACHE: Final = ROOT / ".bench"
INSTALL_SECONDS: Final = 600
# nginx and wrk live there, and not everyone's PATH has it.
SEARCH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
APT_INSTALL: Final = ("apt-get", "install", "-y", "-q", "--no-install-recommends")
POLICY: Final = Path("/usr/sbin/policy-rc.d")
VERSION_FLAGS: Final = {"nginx": "-v", "haproxy": "-v", "wrk": "-v"}


class NotInstalled(Exception):
    """A peer cannot be had here; the reason in one line."""


def program_of(peer: Peer) -> str:
    """The peer's program, installed first if need be. Raises NotInstalled."""
    return debian(peer.program, peer.package) if peer.debian else from_pypi(peer)


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


def debian(program: str, package: str) -> str:
    """A program of a Debian package, by apt-get where that is allowed. Raises NotInstalled."""
    if found := shutil.which(program, path=SEARCH):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"{program} is not installed (apt-get install {package}), and this is not root on Debian")
    print(f"installing {package} ...", flush=True)
    with no_services_started():
        try:
            run(*APT_INSTALL, package)
        except NotInstalled:  # perhaps the lists of packages are not there yet, or old
            run("apt-get", "update", "-q")
            run(*APT_INSTALL, package)
    if found := shutil.which(program, path=SEARCH):
        return found
    raise NotInstalled(f"{package} brought no {program}")


@contextlib.contextmanager
def no_services_started() -> Iterator[None]:
    """A package's program is wanted, not the service that Debian starts with it (policy-rc.d, exit code 101)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def run(*command: str, check: bool = True) -> None:
    """Raises NotInstalled with the last line that the command said."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalled(f"{' '.join(command[-2:])}: {said[-1][:200] if said else 'failed'}")


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

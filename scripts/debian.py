"""Programs of Debian packages, installed where that is allowed: by root, where there is apt. Standard library only."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

INSTALL_SECONDS: Final = 600
# nginx, HAProxy and wrk live there, and not everyone's PATH has it.
SEARCH: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
APT_INSTALL: Final = ("apt-get", "install", "-y", "-q", "--no-install-recommends")
POLICY: Final = Path("/usr/sbin/policy-rc.d")


class NotInstalled(Exception):
    """A program cannot be had here; the reason in one line."""


def program(name: str, package: str) -> str:
    """The path of a program, whose package is installed first if need be. Raises NotInstalled."""
    if found := shutil.which(name, path=SEARCH):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"{name} is not installed (apt-get install {package}), and this is not root on Debian")
    install(package)
    if found := shutil.which(name, path=SEARCH):
        return found
    raise NotInstalled(f"{package} brought no {name}")


def install(*packages: str) -> None:
    """Raises NotInstalled."""
    print(f"installing {' '.join(packages)} ...", flush=True)
    with no_services_started():
        try:
            run(*APT_INSTALL, *packages)
        except NotInstalled:  # perhaps the lists of packages are not there yet, or old
            run("apt-get", "update", "-q")
            run(*APT_INSTALL, *packages)


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

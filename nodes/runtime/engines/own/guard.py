"""Runs a program of others, ends when it ends, and ends it when the node is gone: `guard -- PROGRAM ARGUMENT …`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Final

SECONDS_BETWEEN_LOOKS: Final = 1.0


def main() -> int:
    parent = os.getppid()
    program = subprocess.Popen(sys.argv[2:])  # noqa: S603  # the node's own command line

    def pass_on(number: int, frame: FrameType | None) -> None:
        program.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    while os.getppid() == parent:
        try:
            return program.wait(SECONDS_BETWEEN_LOOKS)
        except subprocess.TimeoutExpired:
            continue
    if os.getpgrp() == os.getpid():  # its own workers too
        os.killpg(os.getpgrp(), signal.SIGKILL)
    program.kill()
    return 1


if __name__ == "__main__":
    sys.exit(main())

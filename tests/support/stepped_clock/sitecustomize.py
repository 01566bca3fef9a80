"""On the PYTHONPATH of a process under test: its clock is set back by an hour when the file in CLOCK_FILE appears."""

import os
import threading
import time


def _watch(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.05)
    import time_machine

    time_machine.travel(time.time() - 3600, tick=True).start()


threading.Thread(target=_watch, args=(os.environ["CLOCK_FILE"],), daemon=True).start()

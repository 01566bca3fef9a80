"""The pulls of one node: each in a thread, those for the same model as one, each model in place only when it is whole.

Files are gathered below `<models>/.pulls/`, which no scan looks into, and moved from there: a folder that is new by one
rename, files of a folder that is there already one by one, weights last. A lock beside them keeps other processes
off; who finds it taken waits, and then finds the model there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nodes.runtime.fetching.failures import Cancelled, FetchFailed
from nodes.runtime.fetching.hub import plan_of
from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.part import has_content
from nodes.runtime.fetching.plan import Plan, RemoteFile, below
from nodes.runtime.fetching.progress import Meter, Progress, PullState
from nodes.runtime.fetching.sources import Source, Wish, read_wish
from nodes.runtime.fetching.transfer import Transfer
from nodes.runtime.fetching.web import Web

log = logging.getLogger("llmlb.node.pulls")

STAGING: Final = ".pulls"
KEPT: Final = 100
# What must be free beyond the model itself: a full disk takes more down than a download.
RESERVE_BYTES: Final = 256 * 1024 * 1024
LOCK_PAUSE: Final = 0.5
LOG_STEP: Final = 0.1
# What broke off and was not asked for again in this time gives its space back.
ABANDONED_SECONDS: Final = 7 * 86400.0
_WEIGHTS: Final = (".gguf", ".safetensors", ".bin", ".onnx", ".index.json")


class Pull:
    """One pull, from its thread's view. Others look at `progress`, and may `cancel`."""

    def __init__(self, wish: Wish, source: Source) -> None:
        self.id = uuid.uuid4().hex
        self.source = source
        self.meter = Meter(self.id, wish.name)
        self.stop = threading.Event()
        self.over = threading.Event()

    @property
    def progress(self) -> Progress:
        return self.meter.look()

    def cancel(self) -> None:
        """End it soon; what has arrived is kept for another time."""
        self.stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end. Returns: whether it came within `timeout` seconds."""
        return self.over.wait(timeout)


class Pulls:
    """All pulls of this process. Safe to use from any thread."""

    def __init__(
        self,
        models_dir: Path,
        origins: Origins,
        *,
        arrived: Callable[[], object] = lambda: None,
        silence: float = 30.0,
        first_pause: float = 1.0,
    ) -> None:
        """`arrived` is called, in the pull's thread, when a model has come into place. `silence` and `first_pause`:
        seconds without a byte before a connection is given up, and before the first further attempt.
        """
        self.models_dir = models_dir
        self.origins = origins
        self._arrived = arrived
        self._silence = silence
        self._first_pause = first_pause
        self._lock = threading.Lock()
        self._pulls: dict[str, Pull] = {}

    def start(self, wish: Wish) -> Pull:
        """Begin a pull; where one for the same is under way, that one. Raises: BadWish, OriginRefused."""
        source = read_wish(wish, self.origins)
        with self._lock:
            for pull in self._pulls.values():
                if pull.source == source and not pull.over.is_set() and not pull.stop.is_set():
                    return pull
            pull = Pull(wish, source)
            self._pulls[pull.id] = pull
            self._forget_oldest()
        threading.Thread(target=self._run, args=(pull,), name=f"pull-{pull.id[:8]}", daemon=True).start()
        return pull

    def get(self, pull_id: str) -> Pull | None:
        with self._lock:
            return self._pulls.get(pull_id)

    def all(self) -> list[Pull]:
        """Newest first. Those that are over are kept for a while."""
        with self._lock:
            return list(reversed(self._pulls.values()))

    def close(self, timeout: float = 5.0) -> None:
        """Stop all of them, and wait `timeout` seconds at most for each."""
        for pull in self.all():
            pull.cancel()
        for pull in self.all():
            pull.wait(timeout)

    def _forget_oldest(self) -> None:
        over = [pull.id for pull in self._pulls.values() if pull.over.is_set()]
        for pull_id in over[: max(0, len(self._pulls) - KEPT)]:
            del self._pulls[pull_id]

    def _run(self, pull: Pull) -> None:
        web = Web(self.origins, silence=self._silence)
        try:
            _remove_abandoned(self.models_dir / STAGING)
            _Work(self, pull, web).run()
        except Cancelled:
            pull.meter.finish(PullState.CANCELLED)
        except FetchFailed as error:
            log.warning("pull failed: model=%s reason=%s", pull.progress.model, error)
            pull.meter.finish(PullState.FAILED, str(error))
        except OSError as error:
            log.warning("pull failed: model=%s", pull.progress.model, exc_info=True)
            pull.meter.finish(PullState.FAILED, f"the models directory cannot be written to: {error.strerror}")
        except Exception:
            log.exception("pull failed: model=%s", pull.progress.model)
            pull.meter.finish(PullState.FAILED, "an error of the node; its log has more")
        else:
            pull.meter.finish(PullState.SUCCESS)
            log.info("pulled: model=%s bytes=%d", pull.progress.model, pull.progress.downloaded_bytes)
            self._arrived()
        finally:
            web.close()
            pull.over.set()

    def transfer(self, web: Web, file: RemoteFile, target: Path, pull: Pull, told: Callable[[int], None]) -> Transfer:
        kept = pull.meter.have
        return Transfer(web, file, target, told=told, kept=kept, stop=pull.stop, first_pause=self._first_pause)


class _Work:
    """The steps of one pull."""

    def __init__(self, pulls: Pulls, pull: Pull, web: Web) -> None:
        self._pulls = pulls
        self._pull = pull
        self._web = web
        self._root = pulls.models_dir
        self._logged = 0.0

    def run(self) -> None:
        """Raises: FetchFailed, OSError."""
        plan = plan_of(self._pull.source, self._web)
        self._pull.meter.plan(plan.model_id, total=plan.total_bytes, files=len(plan.files))
        log.info("pulling: model=%s files=%d bytes=%s", plan.model_id, len(plan.files), plan.total_bytes)
        place = hashlib.sha256(plan.key.encode()).hexdigest()[:16]
        with self._only_one(self._root / STAGING / f"{place}.lock"):
            staging = self._root / STAGING / place
            missing = [file for file in plan.files if not self._is_here(plan, file)]
            self._check_space(staging, missing)
            for file in missing:
                self._fetch(file, staging / file.path)
            _move_into_place(staging, self._root, plan, missing)

    @contextmanager
    def _only_one(self, path: Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w") as lock:
            while not _try_lock(lock.fileno()):
                if self._pull.stop.wait(LOCK_PAUSE):
                    raise Cancelled
            yield  # the file stays: another process may be waiting for just this one

    def _is_here(self, plan: Plan, file: RemoteFile) -> bool:
        if self._pull.stop.is_set():
            raise Cancelled
        if not has_content(below(self._root, f"{plan.folder}/{file.path}".lstrip("/")), file):
            return False
        self._pull.meter.have(file.size or 0)
        self._pull.meter.file_done()
        return True

    def _check_space(self, staging: Path, missing: list[RemoteFile]) -> None:
        here = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.is_dir() else 0
        needed = sum(file.size or 0 for file in missing) - here
        free = shutil.disk_usage(self._root).free
        if missing and free < needed + RESERVE_BYTES:
            raise FetchFailed(f"the disk has {free} bytes free, and the model needs {needed + RESERVE_BYTES}")

    def _fetch(self, file: RemoteFile, target: Path) -> None:
        if target.is_file():  # whole since an earlier run, which did not get to the end
            if has_content(target, file):
                self._pull.meter.have(file.size or 0)
                return self._pull.meter.file_done()
            target.unlink()
        self._pulls.transfer(self._web, file, target, self._pull, self._tell).run()
        self._pull.meter.file_done()

    def _tell(self, count: int) -> None:
        self._pull.meter.add(count)
        now = self._pull.progress
        if (now.share or 0) >= self._logged + LOG_STEP:
            self._logged = LOG_STEP * int((now.share or 0) / LOG_STEP)
            log.info("pulling: model=%s %d %%", now.model, round(self._logged * 100))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def _move_into_place(staging: Path, root: Path, plan: Plan, files: list[RemoteFile]) -> None:
    if files:
        folder = below(root, plan.folder) if plan.folder else root
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.rename(staging, folder)
        else:
            for file in sorted(files, key=lambda file: file.path.endswith(_WEIGHTS)):
                target = below(root, f"{plan.folder}/{file.path}".lstrip("/"))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / file.path, target)
    shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(staging: Path) -> None:
    """Parts of models that nobody has asked for in a week. Those at work are written to, so they are not as old."""
    for folder in staging.glob("*/"):
        newest = time.time()
        with suppress(OSError):  # another pull is just moving it into place
            newest = max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
        if time.time() - newest > ABANDONED_SECONDS:
            log.info("removed: what is left of a pull that broke off long ago (%s)", folder.name)
            shutil.rmtree(folder, ignore_errors=True)

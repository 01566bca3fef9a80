"""Uploads on a disk that is full: they are kept in memory, up to a bound of all together."""

from __future__ import annotations

import errno
import io
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from routing.gateway import spool as spool_module
from routing.gateway.spool import MEMORY_BYTES, Spool
from tests.routing.conftest import Fleet, bearer

MIB = 1024 * 1024
FillDisk = Callable[[int], None]


class SmallDisk(io.FileIO):
    """A file on a disk that has room for `room` bytes more: like any disk, it takes a part of what does not fit."""

    def __init__(self, path: Path, room: int) -> None:
        super().__init__(path, "w+")
        self._room = room

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]  # of any buffer, as it is called
        taken = memoryview(data)[: self._room]
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._room -= len(taken)
        return super().write(taken)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FillDisk:
    """`room(1000)`: the disk has room for 1000 bytes of each upload from now on."""

    numbers = itertools.count()

    def set_room(size: int) -> None:
        def make(*, buffering: int, dir: Path | None) -> SmallDisk:
            return SmallDisk(tmp_path / f"upload-{next(numbers)}", size)

        monkeypatch.setattr(tempfile, "TemporaryFile", make)

    return set_room


async def written(spool: Spool, data: bytes) -> Spool:
    for start in range(0, len(data), 70_000):
        await spool.write(data[start : start + 70_000])
    await spool.finish()
    return spool


@pytest.mark.parametrize("size", [0, 1, MEMORY_BYTES, MEMORY_BYTES + 100_001, 2_900_000])
async def test_what_the_disk_does_not_take_is_kept_in_memory(room: FillDisk, size: int) -> None:
    room(size)
    data = os.urandom(3_000_000)
    spool = await written(Spool(None), data)
    for _ in range(2):  # and again, for a second node
        assert b"".join(spool.pieces()) == data
    assert b"".join(spool.pieces(900_000, 2_950_000)) == data[900_000:2_950_000]
    assert spool.length == len(data)
    assert Spool.refused == len(data) - size
    spool.close()
    assert Spool.refused == 0


async def test_a_disk_that_takes_no_file_at_all(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    spool = await written(Spool(tmp_path / "not there"), data)
    assert b"".join(spool.pieces()) == data
    spool.close()


async def test_all_uploads_together_take_no_more_than_the_bound(
    room: FillDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(0)
    monkeypatch.setattr(spool_module, "REFUSED_BYTES", 4 * MIB)
    first, second, small = Spool(None), Spool(None), Spool(None)
    await written(first, bytes(2 * MIB))
    with pytest.raises(OSError, match="No space left"):
        await written(second, bytes(3 * MIB))
    await written(small, bytes(MEMORY_BYTES - 1))  # would not have needed the disk
    second.close()
    assert Spool.refused == 2 * MIB
    third = await written(Spool(None), bytes(2 * MIB))
    for each in (first, third, small):
        each.close()
    assert Spool.refused == 0


async def upload(fleet: Fleet, size: int) -> httpx.Response:
    sound = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(size)
    files = {"file": ("talk.wav", sound)}
    return await fleet.client.post(
        "/v1/audio/transcriptions", data={"model": "whisper-1"}, files=files, headers=bearer(fleet.key)
    )


async def test_an_upload_is_refused_only_when_memory_is_full_as_well(
    fleet: Fleet, room: FillDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await fleet.add("whisper-1")
    room(MEMORY_BYTES)
    answer = await upload(fleet, 3 * MIB)
    assert answer.status_code == 200, answer.text
    assert len(node.inferences[-1].body) > 3 * MIB
    monkeypatch.setattr(spool_module, "REFUSED_BYTES", MIB)
    answer = await upload(fleet, 3 * MIB)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upload_not_stored")
    assert answer.headers["retry-after"] == "30"
    assert Spool.refused == 0

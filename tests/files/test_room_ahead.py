"""Room that is reserved for a file before its bytes come, and given back where none come."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowline.net import room_ahead
from crowline.net.room_ahead import RoomAhead

MIB = 1 << 20


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What the kernel is asked for: flags, start, length; it agrees up to 200 MiB."""
    asked: list[tuple[int, int, int]] = []

    def fallocate(_: int, flags: int, start: int, length: int) -> int:
        asked.append((flags, start, length))
        return 0 if start + length <= 200 * MIB else -1

    monkeypatch.setattr(room_ahead, "_find", lambda: fallocate)
    return asked


def test_room_is_taken_in_large_steps_and_never_beyond_the_file(calls: list[tuple[int, int, int]]) -> None:
    """One call for each 64 MiB; none for what is left if that is little."""
    room = RoomAhead(129 * MIB - 1)
    for start in range(0, 129 * MIB - 1, 256 << 10):
        room.take(3, start, min(start + (256 << 10), 129 * MIB - 1))
    assert calls == [(1, 0, 64 * MIB), (1, 64 * MIB, 64 * MIB)]


def test_what_the_kernel_refuses_is_not_asked_for_again(calls: list[tuple[int, int, int]]) -> None:
    """A disk that is too full for a reservation may still take the bytes."""
    room = RoomAhead(1024 * MIB)
    for start in range(0, 1024 * MIB, MIB):
        room.take(3, start, start + MIB)
    assert calls[-1] == (1, 192 * MIB, 64 * MIB) and len(calls) == 4


def test_what_follows_a_hole_is_reserved_anew(calls: list[tuple[int, int, int]], descriptor: int) -> None:
    """What was reserved for the hole is given back with one call."""
    room = RoomAhead(512 * MIB)
    room.take(descriptor, 0, MIB)
    room.release(descriptor, MIB)
    assert os.fstat(descriptor).st_size == MIB
    room.release(descriptor, 100 * MIB)
    assert os.fstat(descriptor).st_size == MIB
    room.take(descriptor, 129 * MIB, 130 * MIB)
    assert calls == [(1, 0, 64 * MIB), (1, 129 * MIB, 64 * MIB)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="fallocate(2) is of Linux")
def test_the_length_of_a_file_says_how_much_has_come(descriptor: int) -> None:
    """Reserved room does not count, and goes when the file gets its length."""
    room = RoomAhead(8 * MIB)
    room.take(descriptor, 0, MIB)
    assert os.fstat(descriptor).st_size == 0
    os.write(descriptor, bytes(MIB))
    assert os.fstat(descriptor).st_size == MIB
    os.ftruncate(descriptor, MIB)
    assert os.fstat(descriptor).st_blocks * 512 < 2 * MIB

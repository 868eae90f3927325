"""What is remembered of unfinished transfers, who may have it, and what a damaged memory costs."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crowline.api.unfinished import incoming, outgoing
from crowline.base.secrets import Secret
from crowline.net.transfer_records import KEPT_SECONDS, MAX_BYTES, MAX_RECORDS, TransferRecord, claim

RECORD = TransferRecord("7-maple-orbit-candle", "ws://192.0.2.1:8080", bytes(range(32)), True)
OTHER = TransferRecord("8-maple-orbit-candle", "ws://192.0.2.1:8080", bytes(32), False)


def remember(folder: Path, name: bytes, record: TransferRecord = RECORD) -> None:
    slot = claim(name, folder)
    slot.keep(record)
    slot.close()


def test_a_transfer_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    """By the next process, which may forget it for all later ones."""
    remember(tmp_path, b"a")
    slot = claim(b"a", tmp_path)
    assert slot.record == RECORD
    slot.forget()
    slot.close()
    assert list(tmp_path.iterdir()) == []
    assert claim(b"a", tmp_path).record is None


def test_another_transfer_is_another(tmp_path: Path) -> None:
    """Nothing of one is known to the other."""
    remember(tmp_path, b"a")
    assert claim(b"b", tmp_path).record is None


def test_a_later_meeting_replaces_what_was_kept(tmp_path: Path) -> None:
    """A shorter record leaves nothing of a longer one behind."""
    slot = claim(b"a", tmp_path)
    slot.keep(TransferRecord("x" * 90, "ws://192.0.2.1:8080", bytes(32), True))
    slot.keep(RECORD)
    slot.close()
    assert claim(b"a", tmp_path).record == RECORD


def test_a_full_disk_costs_no_record_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What both met by is written down once, not at each meeting anew: the disk may be full by then."""
    remember(tmp_path, b"a")
    slot = claim(b"a", tmp_path)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        slot.keep(RECORD)
        slot.close()
    assert claim(b"a", tmp_path).record == RECORD


def test_only_its_own_file_is_removed_with_what_is_forgotten(tmp_path: Path) -> None:
    """A process that took longer than records are kept: another one has the name by now."""
    first = claim(b"a", tmp_path)
    first.keep(RECORD)
    (path,) = tmp_path.iterdir()
    path.unlink()
    remember(tmp_path, b"a", OTHER)
    first.forget()
    first.close()
    assert claim(b"a", tmp_path).record == OTHER


def test_a_file_that_vanishes_meanwhile_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process ends while this one looks what is too old."""
    remember(tmp_path, b"other", OTHER)
    honest = Path.stat

    def vanish(self: Path, **options: bool) -> os.stat_result:
        if self.parent == tmp_path:
            monkeypatch.undo()
            self.unlink()
        return honest(self, **options)

    monkeypatch.setattr(Path, "stat", vanish)
    remember(tmp_path, b"a")
    assert claim(b"a", tmp_path).record == RECORD


def test_whoever_meets_nobody_leaves_nothing(tmp_path: Path) -> None:
    """Not even an empty file."""
    claim(b"a", tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_have_one_each(tmp_path: Path) -> None:
    """The same paths to two people: neither takes the other's code, also when both are broken off."""
    first, second = claim(b"a", tmp_path), claim(b"a", tmp_path)
    first.keep(RECORD)
    assert second.record is None
    second.keep(OTHER)
    third = claim(b"a", tmp_path)
    assert third.record is None
    for slot in (first, second, third):
        slot.close()
    assert claim(b"a", tmp_path).record == RECORD
    assert len(list(tmp_path.iterdir())) == 2


def test_as_many_as_were_broken_off_are_found_again(tmp_path: Path) -> None:
    """One sender with two receivers goes on with both."""
    slots = [claim(b"a", tmp_path) for _ in range(2)]
    for slot, record in zip(slots, (RECORD, OTHER), strict=True):
        slot.keep(record)
        slot.close()
    again = [claim(b"a", tmp_path) for _ in range(3)]
    assert [slot.record for slot in again] == [RECORD, OTHER, None]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """kill -9: what it had kept is there for the next one, what it had not is no obstacle."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from crowline.net.transfer_records import TransferRecord, claim\n"
        "slot = claim(b'a', Path(sys.argv[1]))\n"
        "slot.keep(TransferRecord('7-maple-orbit-candle', 'ws://192.0.2.1:8080', bytes(range(32)), True))\n"
        "empty = claim(b'a', Path(sys.argv[1]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        held = claim(b"a", tmp_path)
        assert held.record is None
        held.close()
        process.kill()
        process.wait(30)
    assert claim(b"a", tmp_path).record == RECORD


def test_the_file_names_nothing_and_is_for_this_user_alone(tmp_path: Path) -> None:
    """A listing of the folder tells neither paths nor codes."""
    folder = tmp_path / "state"
    with outgoing([tmp_path / "holiday.mov"], folder=folder) as unfinished:
        unfinished.keep(RECORD.code, RECORD.url, Secret(RECORD.secret), hosts=True)
    with incoming(RECORD.code, tmp_path / "downloads", folder=folder) as unfinished:
        unfinished.keep("", RECORD.url, Secret(RECORD.secret), hosts=False)
    assert len(list(folder.iterdir())) == 2
    for path in folder.iterdir():
        assert "holiday" not in path.name + path.read_text()
        assert "downloads" not in path.name + path.read_text()
        assert "maple" not in path.name
        if sys.platform != "win32":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_paths_are_the_same_in_any_order_and_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is which files they are, seen from anywhere."""
    folder = tmp_path / "state"
    with outgoing([tmp_path / "a", tmp_path / "b"], folder=folder) as unfinished:
        unfinished.keep(RECORD.code, RECORD.url, Secret(RECORD.secret), hosts=True)
    monkeypatch.chdir(tmp_path)
    with outgoing([Path("b"), Path("c/../a")], folder=folder) as unfinished:
        assert (unfinished.code, unfinished.url) == (RECORD.code, RECORD.url)
        assert unfinished.secret.reveal() == RECORD.secret and unfinished.hosts
    with outgoing([Path("a"), Path("b")], "ana", folder) as unfinished:
        assert not unfinished.is_known, "what goes to somebody who is known is another transfer"
    with outgoing([Path("a")], folder=folder) as unfinished:
        assert not unfinished.is_known


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[" * 5000,
        b"\xff\xfe",
        b'{"code":1}',
        b'{"code":"a","url":"b","secret":"AAAA"}',
        b" " * (MAX_BYTES + 1),
        b'{"code":"' + b"x" * 200 + b'","url":"b","secret":"' + b"A" * 43 + b'="}',
    ],
)
def test_damage_counts_as_nothing(tmp_path: Path, damage: bytes) -> None:
    """No error, and the place can be used again."""
    remember(tmp_path, b"a")
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    slot = claim(b"a", tmp_path)
    assert slot.record is None
    slot.keep(RECORD)
    slot.close()
    assert claim(b"a", tmp_path).record == RECORD


def test_what_nobody_touched_for_days_is_forgotten(tmp_path: Path) -> None:
    """The other side has given up long ago."""
    remember(tmp_path, b"a")
    remember(tmp_path, b"b")
    old = time.time() - KEPT_SECONDS - 60
    for path in tmp_path.iterdir():
        os.utime(path, (old, old))
    assert claim(b"a", tmp_path).record is None
    assert len(list(tmp_path.iterdir())) == 1


def test_a_clock_that_was_set_back_forgets_nothing(tmp_path: Path) -> None:
    """A record from the future is as good as one from today."""
    remember(tmp_path, b"a")
    (path,) = tmp_path.iterdir()
    os.utime(path, (time.time() + 1e7, time.time() + 1e7))
    assert claim(b"a", tmp_path).record == RECORD


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    """Those that were not touched for longest make room."""
    for number in range(MAX_RECORDS + 5):
        remember(tmp_path, b"%d" % number)
        (newest,) = (path for path in tmp_path.iterdir() if path.stat().st_mtime > 1e9)
        os.utime(newest, (number + 1, number + 1))
    claim(b"new", tmp_path, clock=lambda: 0.0)
    assert len(list(tmp_path.iterdir())) <= MAX_RECORDS + 1


def test_a_folder_that_cannot_be_used_costs_the_memory_only(tmp_path: Path) -> None:
    """The transfer itself goes on."""
    (tmp_path / "file").touch()
    slot = claim(b"a", tmp_path / "file")
    slot.keep(RECORD)
    assert slot.record == RECORD
    slot.close()
    assert claim(b"a", tmp_path / "file").record is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Nothing is written through it."""
    folder = tmp_path / "state"
    remember(folder, b"a")
    (path,) = folder.iterdir()
    path.unlink()
    path.symlink_to(tmp_path / "target")
    remember(folder, b"a")
    assert not (tmp_path / "target").exists()

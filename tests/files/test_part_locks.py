"""Whose an unfinished file or folder is, while several transfers are at work in one folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem
from crowline.net import parts, stage
from crowline.net.directory import Directory
from crowline.net.files import IncomingFile, SafeFolder
from crowline.net.found_file import Found, Kind
from crowline.net.parts import claimed_part
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.names import private_name
from memory_stream import tree


@pytest.fixture
def root(tmp_path: Path) -> Directory:
    return Directory.open(tmp_path)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_file_is_claimed_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another transfer that took it for its own part in that moment would write into somebody's file."""
    honest, claimed = Directory.rename_file, []

    def rename(self: Directory, old: str, new: str) -> None:
        claimed.append(claimed_part(self, old))
        honest(self, old, new)

    monkeypatch.setattr(Directory, "rename_file", rename)
    folder = SafeFolder.open(tmp_path)
    before = descriptors()
    file = folder.create_file("a", 0o644)
    file.write(b"a")
    file.commit()
    assert claimed == [None]
    assert descriptors() == before
    folder.close()


def test_a_part_that_has_got_its_name_meanwhile_is_nobodys_part(
    root: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while another transfer was at it, and locked when that had finished."""
    (tmp_path / private_name("a")).write_bytes(b"a")

    def late(descriptor: int) -> bool:
        (tmp_path / private_name("a")).rename(tmp_path / "a")
        return True

    monkeypatch.setattr(parts, "claim", late)
    assert claimed_part(root, private_name("a")) is None
    root.close()


def test_a_new_part_that_another_transfer_has_found_at_once_is_left_to_it(
    root: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next name is tried; never do two write to one file."""
    answers = iter([False, True])
    monkeypatch.setattr(parts, "claim", lambda descriptor: next(answers))
    descriptor, name = parts.new_part(root, private_name("a"), os.urandom)
    assert name != private_name("a") and set(tree(tmp_path)) == {name, private_name("a")}
    os.close(descriptor)
    root.close()


def test_a_new_folder_that_another_transfer_has_found_at_once_is_left_to_it(
    root: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is it with folders."""
    answers = iter([False, True])
    monkeypatch.setattr(Directory, "lock", lambda self: next(answers))
    begun = stage.begin(root, "d", os.urandom)
    assert begun.name != private_name("d")
    begun.lock.close()
    root.close()


def test_a_folder_that_has_got_its_name_meanwhile_is_not_taken_over(
    root: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened while another transfer was at it, and locked when that had finished: its permissions stay."""
    left = tmp_path / private_name("d")
    left.mkdir(0o755)

    def late(self: Directory) -> bool:
        left.rename(tmp_path / "d")
        return True

    monkeypatch.setattr(Directory, "lock", late)
    assert stage.adopt(root, "d", stage.Offered(Manifest((Folder("d", 0o755),), ()))) is None
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755
    root.close()


def test_a_copy_that_fails_leaves_nothing_open_and_its_part_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk; the next transfer takes over what came."""
    content = os.urandom(1 << 20)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "same").write_bytes(content)
    before = descriptors()
    folder = SafeFolder.open(tmp_path)
    files = File("d/same", len(content), 0o644), File("d/new", 1, 0o644)
    folder.prepare(Manifest((Folder("d", 0o755),), files))
    folder.is_there("d/same", Found(Kind.THERE, len(content)), hashlib.sha256(content).digest())
    folder.write_small("d/new", 0o644, b"n")

    def fail(self: IncomingFile, length: int, stop: object) -> None:
        raise LocalProblem("full")

    monkeypatch.setattr(IncomingFile, "keep", fail)
    with pytest.raises(LocalProblem, match="full"):
        folder.settle()
    folder.give_up()
    folder.close()
    assert descriptors() == before
    assert set(tree(tmp_path)) == {"d", "d/same", "d (incomplete)", "d (incomplete)/new"}

"""The receiving folder: free names only, permissions, and nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem, UsageError
from crowline.net import directory, incoming_file
from crowline.net.files import DiskFull, SafeFolder
from crowline.net.found_file import everything
from crowline.transfer.manifest import Folder, Manifest
from crowline.transfer.names import UnsafeName, private_name
from memory_stream import tree
from needs import missing

MIB = 1 << 20
STRATEGIES = ["renameat2", "link", "placeholder", "paths"]


def no_links(*args: object, **options: object) -> None:
    raise OSError(errno.EPERM, "no links here")


@pytest.fixture(params=STRATEGIES)
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SafeFolder]:
    """A safe folder in every way in which a system can give a file a free name."""
    if request.param == "renameat2" and directory._renameat2 is None:
        missing("this system has no renameat2")
    if request.param != "renameat2":
        monkeypatch.setattr(directory, "_renameat2", None)
    if request.param == "placeholder":
        monkeypatch.setattr(os, "link", no_links)
        monkeypatch.setattr(os, "supports_follow_symlinks", {*os.supports_follow_symlinks, no_links})
    opened = SafeFolder.open(tmp_path / "target", by_descriptor=request.param != "paths")
    yield opened
    opened.close()


def offer(folders: list[Folder]) -> Manifest:
    return Manifest(tuple(folders), ())


def receive(folder: SafeFolder, path: str, content: bytes = b"new", mode: int = 0o644) -> str:
    file = folder.create_file(path, mode)
    file.write(content)
    return file.commit()


def test_a_file_gets_its_name_when_it_is_whole(folder: SafeFolder) -> None:
    """Until then nothing has the name."""
    file = folder.create_file("a.txt", 0o640)
    file.write(b"one ")
    file.write(memoryview(b"two"))
    (part,) = tree(folder.path)
    assert part.startswith(".crowline-") and part.endswith(".part")
    assert file.commit() == "a.txt"
    assert tree(folder.path) == {"a.txt": b"one two"}
    assert folder.settle() == {"a.txt": "a.txt"}


@pytest.mark.parametrize(
    ("offered", "kept"), [(0o755, 0o755), (0o400, 0o400), (0o4755, 0o755), (0o3777, 0o755), (0o666, 0o644)]
)
def test_f3_permissions_are_kept_without_the_special_bits(
    folder: SafeFolder, offered: int, kept: int
) -> None:
    """Set-user-id, set-group-id, sticky and others' right to write never arrive, for files or folders."""
    folder.prepare(offer([Folder("d", offered)]))
    receive(folder, "d/a", mode=offered)
    folder.settle()
    assert (folder.path / "d").stat().st_mode & 0o7777 == kept
    # Without root, looking inside needs more than some of these permissions.
    (folder.path / "d").chmod(0o700)
    assert (folder.path / "d" / "a").stat().st_mode & 0o7777 == kept


def test_a_taken_name_is_counted_up(folder: SafeFolder) -> None:
    """Files are never replaced."""
    (folder.path / "a.txt").write_bytes(b"old")
    (folder.path / "a (1).txt").mkdir()
    assert receive(folder, "a.txt") == "a (2).txt"
    assert tree(folder.path) == {"a.txt": b"old", "a (1).txt": None, "a (2).txt": b"new"}
    assert folder.settle() == {"a.txt": "a (2).txt"}


def test_a_taken_folder_is_counted_up_as_a_whole(folder: SafeFolder) -> None:
    """What arrives is never mixed with what was there."""
    (folder.path / "notes").mkdir()
    (folder.path / "notes" / "mine").write_bytes(b"old")
    folder.prepare(offer([Folder("notes", 0o755), Folder("notes/sub", 0o755)]))
    receive(folder, "notes/sub/yours")
    assert folder.settle() == {"notes": "notes (1)"}
    assert tree(folder.path) == {
        "notes": None,
        "notes/mine": b"old",
        "notes (1)": None,
        "notes (1)/sub": None,
        "notes (1)/sub/yours": b"new",
    }


def test_a_folder_gets_its_name_when_it_is_whole(folder: SafeFolder) -> None:
    """Until then it has a name that says that it is a part."""
    folder.prepare(offer([Folder("notes", 0o755)]))
    receive(folder, "notes/a")
    assert "notes" not in tree(folder.path)
    folder.settle()
    assert tree(folder.path) == {"notes": None, "notes/a": b"new"}


def test_read_only_folders_are_filled_before_they_are_closed(folder: SafeFolder) -> None:
    """Permissions are given last, innermost first."""
    folder.prepare(offer([Folder("d", 0o555), Folder("d/e", 0o500), Folder("d/empty", 0o755)]))
    receive(folder, "d/e/a")
    folder.settle()
    modes = {p.name: p.stat().st_mode & 0o777 for p in folder.path.rglob("*")}
    assert modes == {"d": 0o555, "e": 0o500, "a": 0o644, "empty": 0o755}
    for path in (folder.path / "d", folder.path / "d" / "e"):
        path.chmod(0o755)


def test_a_discarded_file_leaves_nothing(folder: SafeFolder) -> None:
    """Neither under its own name nor under ours."""
    file = folder.create_file("a.txt", 0o644)
    file.write(b"half")
    file.discard()
    file.discard()
    assert tree(folder.path) == {}


def test_giving_up_removes_what_is_empty(folder: SafeFolder) -> None:
    """A folder of which nothing came leaves no trace."""
    folder.prepare(offer([Folder("d", 0o755), Folder("d/e", 0o755)]))
    folder.create_file("d/e/a", 0o644).discard()
    assert folder.give_up() == {}
    assert tree(folder.path) == {}


def test_giving_up_calls_the_rest_incomplete(folder: SafeFolder) -> None:
    """Whole files are kept, in a folder that does not look whole."""
    folder.prepare(offer([Folder("d", 0o755), Folder("d/e", 0o755)]))
    receive(folder, "d/a")
    assert folder.give_up() == {"d": "d (incomplete)"}
    assert tree(folder.path) == {"d (incomplete)": None, "d (incomplete)/a": b"new"}


def test_a_folder_that_lost_a_file_is_called_incomplete(folder: SafeFolder) -> None:
    """One file that was not verified is enough."""
    folder.prepare(offer([Folder("d", 0o755)]))
    receive(folder, "d/a")
    folder.create_file("d/b", 0o644).discard()
    assert folder.settle() == {"d": "d (incomplete)"}


def test_f2_a_link_in_the_place_of_a_file_is_not_followed(folder: SafeFolder, tmp_path: Path) -> None:
    """A symbolic link, dangling or not, is a taken name like any other."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (folder.path / "a").symlink_to(outside)
    (folder.path / "b").symlink_to(tmp_path / "nowhere")
    assert (receive(folder, "a"), receive(folder, "b")) == ("a (1)", "b (1)")
    assert outside.read_bytes() == b"precious" and not (tmp_path / "nowhere").exists()


def test_f2_a_link_in_the_place_of_a_folder_is_not_followed(folder: SafeFolder, tmp_path: Path) -> None:
    """What is offered in a folder does not go where a planted link points."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.path / "d").symlink_to(outside)
    folder.prepare(offer([Folder("d", 0o755)]))
    receive(folder, "d/a")
    assert folder.settle() == {"d": "d (1)"}
    assert tree(outside) == {}


def test_f2_a_folder_swapped_for_a_link_is_not_entered(folder: SafeFolder, tmp_path: Path) -> None:
    """A link put in the place of a folder that we made stops the transfer."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.prepare(offer([Folder("d", 0o755), Folder("d/e", 0o755)]))
    (staged,) = folder.path.iterdir()
    (staged / "e").rmdir()
    (staged / "e").symlink_to(outside)
    with pytest.raises(LocalProblem):
        folder.create_file("d/e/a", 0o644)
    staged.rename(folder.path / "moved")
    staged.symlink_to(outside)
    with pytest.raises(LocalProblem):
        folder.create_file("d/a", 0o644)
    assert tree(outside) == {}


def test_f2_a_part_swapped_for_a_link_is_noticed(folder: SafeFolder, tmp_path: Path) -> None:
    """What gets the name is what was written, or the file is not kept."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    file = folder.create_file("a", 0o644)
    file.write(b"new")
    (part,) = folder.path.iterdir()
    part.unlink()
    part.symlink_to(outside)
    with pytest.raises(LocalProblem, match="another program"):
        file.commit()
    assert outside.read_bytes() == b"precious"


def test_f2_a_planted_part_is_not_opened(tmp_path: Path) -> None:
    """Even somebody who guesses our temporary name gets nothing written through it."""
    outside = tmp_path / "outside"
    with_guess = SafeFolder.open(tmp_path / "target", entropy=bytes)
    (with_guess.path / private_name("a")).symlink_to(outside)
    (with_guess.path / f".crowline-{bytes(8).hex()}.part").symlink_to(outside)
    with pytest.raises(LocalProblem):
        with_guess.create_file("a", 0o644)
    with_guess.close()
    assert not outside.exists()


@pytest.mark.parametrize("plant", ["link", "hard link", "pipe", "folder"])
def test_f2_what_is_planted_under_a_private_name_is_not_written_to(
    folder: SafeFolder, tmp_path: Path, plant: str
) -> None:
    """The private name of a file is known to all: only a file of ours, under this name alone, is resumed."""
    precious, part = tmp_path / "precious", folder.path / private_name("a")
    precious.write_bytes(b"precious")
    if plant == "link":
        part.symlink_to(precious)
    elif plant == "hard link":
        # In one way to rename, this process has no links.
        subprocess.run(["ln", precious, part], check=True)
    elif plant == "pipe":
        os.mkfifo(part)
    else:
        part.mkdir()
    assert folder.find("a") is None
    assert receive(folder, "a", b"received") == "a"
    assert precious.read_bytes() == b"precious"
    assert (folder.path / "a").read_bytes() == b"received"


def test_f2_a_folder_moved_away_while_it_is_open_is_not_looked_up_again(tmp_path: Path) -> None:
    """The path of the target itself may become a link: the descriptor stays where it was."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = SafeFolder.open(tmp_path / "target")
    file = folder.create_file("a", 0o644)
    folder.path.rename(tmp_path / "moved")
    folder.path.symlink_to(outside)
    file.write(b"new")
    file.commit()
    receive(folder, "b")
    folder.close()
    assert tree(outside) == {}
    assert tree(tmp_path / "moved") == {"a": b"new", "b": b"new"}


def test_f2_a_target_swapped_for_a_link_is_not_entered_by_paths_either(tmp_path: Path) -> None:
    """Where there are no descriptors, each folder is looked at before it is entered."""
    folder = SafeFolder.open(tmp_path / "target", by_descriptor=False)
    folder.prepare(offer([Folder("d", 0o755)]))
    folder.path.rename(tmp_path / "moved")
    folder.path.symlink_to(tmp_path / "moved")
    with pytest.raises(LocalProblem):
        folder.create_file("d/a", 0o644)
    folder.close()
    assert [path for path, content in tree(tmp_path / "moved").items() if content is not None] == []


@pytest.mark.parametrize("path", ["../a", "/a", "d/../../a", "", "a\x00", "C:\\a"])
def test_f1_an_unsafe_path_is_refused_here_too(folder: SafeFolder, path: str) -> None:
    """The folder does not rely on its caller having checked the offer."""
    with pytest.raises(UnsafeName):
        folder.create_file(path, 0o644)
    with pytest.raises(UnsafeName):
        folder.prepare(offer([Folder(path, 0o755)]))
    assert tree(folder.path) == {}


def test_a_file_in_a_folder_that_was_not_made_is_the_callers_fault(folder: SafeFolder) -> None:
    """Folders are made from the offer before files come."""
    with pytest.raises(UsageError):
        folder.create_file("d/a", 0o644)


def test_f4_room_is_wanted_with_a_reserve(folder: SafeFolder) -> None:
    """What does not fit, or would leave nothing for others, is refused in a sentence."""
    folder.require_space(0, 1)
    with pytest.raises(DiskFull, match="not enough room"):
        folder.require_space(2**62, 1)
    free, _ = folder._root.space()
    with pytest.raises(DiskFull):
        folder.require_space(free, 1)


def test_a_full_disk_is_told_by_its_own_name(folder: SafeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC and EDQUOT are a `DiskFull`, and the part is gone."""
    for number in (errno.ENOSPC, errno.EDQUOT):
        file = folder.create_file("a", 0o644)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data, number=number: fail(number))
            with pytest.raises(DiskFull):
                file.write(b"x")
        file.discard()
    assert tree(folder.path) == {}


def fail(number: int) -> int:
    raise OSError(number, os.strerror(number))


def test_a_failure_to_keep_a_file_leaves_nothing(folder: SafeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that turns out full only when the file is closed is a full disk, and no name was given."""
    file = folder.create_file("a", 0o644)
    file.write(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", lambda fd, mode: fail(errno.ENOSPC))
        with pytest.raises(DiskFull):
            file.commit()
    assert tree(folder.path) == {}


def test_too_many_copies_are_a_persons_matter(folder: SafeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting up ends, in words, and nothing is left."""
    monkeypatch.setattr(incoming_file, "MAX_NUMBER", 2)
    for name in ("a", "a (1)"):
        (folder.path / name).touch()
    with pytest.raises(LocalProblem, match="too many"):
        receive(folder, "a")
    assert set(tree(folder.path)) == {"a", "a (1)"}


def test_a_target_that_is_no_folder_is_a_local_problem(tmp_path: Path) -> None:
    """The sentence names what was tried."""
    (tmp_path / "file").touch()
    for by_descriptor in (True, False):
        with pytest.raises(LocalProblem, match="use the folder"):
            SafeFolder.open(tmp_path / "file", by_descriptor=by_descriptor)
        with pytest.raises(LocalProblem, match="use the folder"):
            SafeFolder.open(tmp_path / "file" / "below", by_descriptor=by_descriptor)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_descriptors_are_closed(folder: SafeFolder) -> None:
    """A hundred files in ten folders leave no descriptor open but the target's."""
    before = open_descriptors()
    folder.prepare(offer([Folder(f"d{i}", 0o755) for i in range(10)]))
    for i in range(100):
        receive(folder, f"d{i % 10}/{i}")
    folder.settle()
    assert open_descriptors() == before


def blocks(path: Path) -> int:
    """MiB that a file takes of the disk."""
    return path.stat().st_blocks * 512 >> 20


def test_holes_take_no_room_between_bytes(folder: SafeFolder) -> None:
    """However much was reserved ahead of the bytes before them."""
    file = folder.create_file("disk.img", 0o644)
    file.expect(32 * MIB)
    for _ in range(2):
        file.write(b"x" * MIB)
        file.hole(15 * MIB, lambda: False)
    name = file.commit()
    assert (folder.path / name).stat().st_size == 32 * MIB
    assert blocks(folder.path / name) <= 4


def test_holes_that_are_there_stay_when_a_chunk_is_put_right(folder: SafeFolder) -> None:
    """Nothing is reserved where something was before."""
    file = folder.create_file("disk.img", 0o644)
    file.expect(16 * MIB)
    file.write(b"x" * MIB)
    file.hole(14 * MIB, lambda: False)
    file.write(b"x" * MIB)
    file.suspend()
    found = folder.find("disk.img")
    assert found is not None
    file = folder.create_file("disk.img", 0o644, found, everything(16 * MIB))
    file.expect(16 * MIB)
    file.write(b"y" * MIB)
    file.keep(15 * MIB, lambda: False)
    name = file.commit()
    assert (folder.path / name).stat().st_size == 16 * MIB
    assert blocks(folder.path / name) <= 4

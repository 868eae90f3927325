"""What is found for an offer: everything readable, nothing special, names that every system takes."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem
from crowline.net import source_tree
from crowline.net.files import SourceTree
from crowline.transfer.manifest import File, Folder
from crowline.transfer.names import MAX_DEPTH, private_name
from needs import missing


def names(tree: SourceTree) -> list[str]:
    return [entry.path for entry in (*tree.manifest.folders, *tree.manifest.files)]


def test_files_and_folders_are_found_with_sizes_and_permissions(tmp_path: Path) -> None:
    """Empty ones too; a folder before what is in it; in the same order each time."""
    (tmp_path / "notes" / "empty").mkdir(parents=True)
    (tmp_path / "notes" / "empty").chmod(0o750)
    (tmp_path / "notes").chmod(0o755)
    for name, content in (("b.txt", b"bb"), ("a.txt", b""), (".hidden", b"h")):
        (tmp_path / "notes" / name).write_bytes(content)
        (tmp_path / "notes" / name).chmod(0o640)
    (tmp_path / "x.bin").write_bytes(b"xxx")
    (tmp_path / "x.bin").chmod(0o4755)
    tree = SourceTree.walk([tmp_path / "x.bin", str(tmp_path / "notes")])
    assert tree.manifest.folders == (Folder("notes", 0o755), Folder("notes/empty", 0o750))
    assert tree.manifest.files == (
        File("x.bin", 3, 0o755),
        File("notes/.hidden", 1, 0o640),
        File("notes/a.txt", 0, 0o640),
        File("notes/b.txt", 2, 0o640),
    )
    assert [Path(path).name for path in tree.paths] == ["x.bin", ".hidden", "a.txt", "b.txt"]
    assert tree.warnings == ()


def test_links_out_of_a_folder_are_kept_out_with_a_warning(tmp_path: Path) -> None:
    """Neither a link to a file nor one to a folder is followed, whatever way it takes."""
    (tmp_path / "secret").write_bytes(b"s")
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a").touch()
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to("/")
    (folder / "up").symlink_to("../secret")
    (folder / "round").symlink_to("a/../../secret")
    tree = SourceTree.walk([folder])
    assert names(tree) == ["d", "d/a"]
    assert len(tree.warnings) == 4 and all("symbolic link" in text for text in tree.warnings)


def test_links_inside_a_folder_are_kept_as_links(tmp_path: Path) -> None:
    """To files, to folders, upwards within the folder, and to nothing."""
    (tmp_path / "d" / "e").mkdir(parents=True)
    links = {"d/dangling": "nowhere", "d/e/up": "../e", "d/to": "e"}
    for path, target in links.items():
        (tmp_path / path).symlink_to(target)
    tree = SourceTree.walk([tmp_path / "d"])
    assert {link.path: link.target for link in tree.manifest.links} == links
    assert not tree.warnings and names(tree) == ["d", "d/e"]


def test_unfinished_files_of_ours_are_not_sent(tmp_path: Path) -> None:
    """What is being received into the folder that somebody sends stays out, with a warning."""
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / private_name("x")).touch()
    tree = SourceTree.walk([folder])
    assert names(tree) == ["d"] and len(tree.warnings) == 1


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    """It is offered under the name that was typed."""
    (tmp_path / "real").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("real")
    assert SourceTree.walk([tmp_path / "link"]).manifest.files == (
        File("link", 4, (tmp_path / "real").stat().st_mode & 0o777),
    )


def test_f5_what_is_neither_file_nor_folder_is_kept_out(tmp_path: Path) -> None:
    """Pipes and sockets inside a folder are warned of; nothing waits for their other end."""
    folder = tmp_path / "d"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        tree = SourceTree.walk([folder])
    assert names(tree) == ["d"]
    assert len(tree.warnings) == 2


@pytest.mark.parametrize("kind", ["/dev/zero", "/dev/null", "pipe"])
def test_f5_a_device_or_pipe_is_not_a_source(kind: str, tmp_path: Path) -> None:
    """A special file that the user names is refused at once."""
    path = Path(kind)
    if kind == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    with pytest.raises(LocalProblem, match="neither a file nor a folder"):
        SourceTree.walk([path])


@pytest.mark.parametrize(("path", "match"), [("missing", "no such file"), ("a\x00b", "Could not read")])
def test_what_is_not_there_is_a_local_problem(path: str, match: str, tmp_path: Path) -> None:
    """The sentence names it, and is safe to print."""
    with pytest.raises(LocalProblem, match=match) as problem:
        SourceTree.walk([tmp_path / path])
    assert problem.value.message.isprintable()


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root reads everything, so the test goes on as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["file", "folder"])
def test_an_unreadable_source_is_a_local_problem_at_once(name: str, ordinary_user: None) -> None:
    """Before anybody is asked to wait for it, and also deep inside a folder."""
    with tempfile.TemporaryDirectory() as root:
        outer = Path(root) / "outer"
        outer.mkdir()
        (outer / "folder").mkdir()
        (outer / "file").touch()
        (outer / name).chmod(0)
        try:
            with pytest.raises(LocalProblem, match=f"{name}: permission denied"):
                SourceTree.walk([outer])
        finally:
            (outer / name).chmod(0o700)


def test_names_that_some_system_forbids_are_changed_with_a_warning(tmp_path: Path) -> None:
    """Every receiver can take the offer, and no two names in it are twins."""
    folder = tmp_path / "d"
    folder.mkdir()
    for name in ("what?.mp3", "what*.mp3", "nul.txt", "a", "A"):
        (folder / name).touch()
    (folder / os.fsdecode(b"bad\xff")).touch()
    tree = SourceTree.walk([folder])
    assert sorted(names(tree)) == sorted(
        ["d", "d/A", "d/a (1)", "d/_nul.txt", "d/what_.mp3", "d/what_ (1).mp3", "d/bad_"]
    )
    assert len(tree.warnings) == 5 and all(text.isprintable() for text in tree.warnings)


def test_equal_names_from_different_folders_are_told_apart(tmp_path: Path) -> None:
    """Two arguments with the same last name become two names."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").touch()
    tree = SourceTree.walk([tmp_path / "one" / "a.txt", tmp_path / "two" / "a.txt"])
    assert names(tree) == ["a.txt", "a (1).txt"]


def test_the_current_folder_is_offered_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dot is not a name."""
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert names(SourceTree.walk(["."])) == ["here", "here/below"]
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert names(SourceTree.walk([".."])) == ["here", "here/below"]


def test_too_deep_a_tree_is_refused(tmp_path: Path) -> None:
    """The deepest tree that a receiver takes is sent; one level more is not."""
    path = tmp_path / "d"
    path.joinpath(*["d"] * (MAX_DEPTH - 2)).mkdir(parents=True)
    deepest = path.joinpath(*["d"] * (MAX_DEPTH - 2))
    (deepest / "a").touch()
    assert len(SourceTree.walk([path]).manifest.files) == 1
    (deepest / "d").mkdir()
    (deepest / "d" / "a").touch()
    with pytest.raises(LocalProblem, match="deeper"):
        SourceTree.walk([path])


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is said, with what to do."""
    monkeypatch.setattr(source_tree, "MAX_ENTRIES", 3)
    for number in range(3):
        (tmp_path / f"{number}").touch()
    with pytest.raises(LocalProblem, match="more than 3") as problem:
        SourceTree.walk([tmp_path])
    assert "archive" in problem.value.hint


def test_nothing_to_send_is_said(tmp_path: Path) -> None:
    """An empty list is not an offer; an empty folder is."""
    with pytest.raises(LocalProblem, match="nothing"):
        SourceTree.walk([])
    assert names(SourceTree.walk([tmp_path])) == [tmp_path.name]


def test_looking_reads_no_file(tmp_path: Path) -> None:
    """A file larger than any disk is found as fast as a small one."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        try:
            file.truncate(1 << 43)
        except OSError:
            missing("this file system has no sparse files of 8 TiB")
    assert SourceTree.walk([path]).manifest.total == 1 << 43

"""Reading ahead and writing behind in threads."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crowline.net import file_reader
from crowline.net.file_reader import (
    READ_AHEAD,
    FileReader,
    ReadChunk,
    ReadDone,
    ReadFailed,
    ReadHole,
    ReadItem,
    ReadKeep,
    ReadSmall,
)
from crowline.net.file_writer import Failed, FileWriter, Mismatched, Settled, Stored
from crowline.net.files import DiskFull, IncomingFile, SafeFolder, SourceTree
from crowline.net.handoff import Handoff
from crowline.transfer.chunks import Comparison
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.messages import MAX_DATA_FRAME
from crowline.transfer.sender import Wanted
from memory_stream import tree

LONG_AGO = 1_000_000_000


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def source(path: Path, content: bytes) -> SourceTree:
    path.write_bytes(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return SourceTree.walk([path])


async def read_all(reader: FileReader, files: int = 1) -> list[ReadItem]:
    items: list[ReadItem] = []
    while files:
        items.append(await reader.next())
        files -= isinstance(items[-1], ReadSmall | ReadDone | ReadFailed)
    await reader.close()
    return items


async def test_a_handoff_keeps_the_order_in_both_directions() -> None:
    """A thousand items through a queue of three, there and back."""
    there: Handoff[int] = Handoff(3)
    back: Handoff[int] = Handoff(3)

    def echo() -> None:
        while (item := there.take()) is not None:
            back.give(item)

    thread = threading.Thread(target=echo)
    thread.start()

    async def feed() -> None:
        for number in range(1000):
            await there.put(number)

    feeding = asyncio.create_task(feed())
    assert [await back.get() for _ in range(1000)] == list(range(1000))
    await feeding
    there.close()
    thread.join()


async def test_closing_a_handoff_frees_everyone() -> None:
    """Whoever waits for room or for an item is let go."""
    queue: Handoff[int] = Handoff(1)
    other: Handoff[int] = Handoff(1)
    results: list[object] = []
    await queue.put(1)
    threads = [
        threading.Thread(target=lambda: results.append(queue.give(2))),
        threading.Thread(target=lambda: results.append(other.take())),
    ]
    for thread in threads:
        thread.start()
    blocked = asyncio.create_task(queue.put(3))
    await asyncio.sleep(0)
    queue.close()
    other.close()
    for thread in threads:
        thread.join()
    await blocked
    assert sorted(map(str, results)) == ["False", "None"]
    assert await queue.get() is None


async def test_files_are_read_in_order_with_their_hashes(tmp_path: Path) -> None:
    """Chunks of at most one frame, an empty file, and a file of its last byte only."""
    contents = [os.urandom(MAX_DATA_FRAME * 2 + 5), b"", b"x"]
    paths = [tmp_path / str(number) for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    items = await read_all(FileReader(SourceTree.walk(paths), [Wanted(i) for i in range(3)]), 3)
    assert b"".join(item.data for item in items if isinstance(item, ReadChunk)) == contents[0]
    assert all(0 < len(item.data) <= MAX_DATA_FRAME for item in items if isinstance(item, ReadChunk))
    assert [item for item in items if not isinstance(item, ReadChunk)] == [
        ReadDone(sha256(contents[0])),
        ReadSmall(b"", sha256(b"")),
        ReadSmall(b"x", sha256(b"x")),
    ]


@pytest.mark.parametrize("compare", [MAX_DATA_FRAME, 2 * MAX_DATA_FRAME, 3 * MAX_DATA_FRAME + 5])
@pytest.mark.parametrize("missing", [0, 1, 2])
async def test_of_a_compared_file_only_what_is_missing_is_given(
    tmp_path: Path, compare: int, missing: int
) -> None:
    """And the hash is of the whole file."""
    content = os.urandom(3 * MAX_DATA_FRAME + 5)
    reader = FileReader(source(tmp_path / "a", content), [Wanted(0, compare)])
    digested = await reader.next_digests()
    chunks = [content[i : min(i + MAX_DATA_FRAME, compare)] for i in range(0, compare, MAX_DATA_FRAME)]
    assert digested is not None and digested.digests == b"".join(map(sha256, chunks))
    missing &= (1 << len(chunks)) - 1
    reader.compared(0, Comparison(len(content), compare, missing))
    items = await read_all(reader)
    rebuilt = b""
    for item in items:
        if isinstance(item, ReadKeep):
            rebuilt += content[len(rebuilt) : len(rebuilt) + item.length]
        elif isinstance(item, ReadChunk):
            rebuilt += item.data
    kept = sum(item.length for item in items if isinstance(item, ReadKeep))
    assert rebuilt == content
    assert kept == compare - sum(len(chunk) for i, chunk in enumerate(chunks) if missing >> i & 1)
    assert items[-1] == ReadDone(sha256(content))


async def test_a_file_that_changes_after_its_digests_were_given_is_not_passed_as_whole(
    tmp_path: Path,
) -> None:
    """What the receiver was told of it is not true any more."""
    path = tmp_path / "a"
    reader = FileReader(source(path, bytes(2 * MAX_DATA_FRAME)), [Wanted(0, MAX_DATA_FRAME)])
    assert await reader.next_digests() is not None
    rewrite(path)
    reader.compared(0, Comparison(2 * MAX_DATA_FRAME, MAX_DATA_FRAME, 0))
    (failed,) = await read_all(reader)
    assert isinstance(failed, ReadFailed) and "changed" in failed.sentence


async def test_holes_and_runs_of_zeros_are_given_as_such(tmp_path: Path) -> None:
    """Whether the file system knows of them or not; the hash is as if they were read."""
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * 100 + bytes(2 * MAX_DATA_FRAME - 100))
    items = await read_all(FileReader(SourceTree.walk([path]), [Wanted(0)]))
    holes = sum(item.length for item in items if isinstance(item, ReadHole))
    assert holes >= (64 << 20) - 2 * MAX_DATA_FRAME
    assert holes + sum(len(item.data) for item in items if isinstance(item, ReadChunk)) == 64 << 20
    assert items[-1] == ReadDone(sha256(path.read_bytes()))


async def test_a_hole_is_said_while_the_rest_of_it_is_hashed(tmp_path: Path) -> None:
    """The other side hashes it at the same time; a disk image of 256 GiB would take minutes."""
    with (tmp_path / "image").open("wb") as file:
        file.truncate(256 << 30)
    reader = FileReader(SourceTree.walk([tmp_path / "image"]), (Wanted(0),))
    assert isinstance(await reader.next(), ReadHole)
    await reader.close()


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")


CHANGES: Sequence[tuple[Callable[[Path], None], str]] = [
    (shrink, "shorter"),
    (grow, "longer"),
    (rewrite, "changed"),
]


@pytest.mark.parametrize(("change", "word"), CHANGES, ids=[word for _, word in CHANGES])
async def test_a_file_that_changes_while_it_is_read_is_not_passed_as_whole(
    tmp_path: Path, change: Callable[[Path], None], word: str
) -> None:
    """The end of a file that is longer than the read-ahead changes after its first chunk was taken."""
    path = tmp_path / "a"
    reader = FileReader(source(path, os.urandom(READ_AHEAD + 4 * MAX_DATA_FRAME)), [Wanted(0)])
    await reader.next()
    change(path)
    last = (await read_all(reader))[-1]
    assert isinstance(last, ReadFailed) and word in last.sentence


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Path.unlink, "not there any more"),
        (shrink, "another size"),
        (grow, "another size"),
        (to_pipe, "not a file any more"),
        (to_link, "symbolic link"),
    ],
)
async def test_a_file_that_changed_since_the_offer_is_said(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    """And the file after it is read all the same."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"content")
    found = SourceTree.walk(paths)
    change(paths[0])
    first, *rest = await read_all(FileReader(found, [Wanted(0), Wanted(1)]), 2)
    assert isinstance(first, ReadFailed) and words in first.sentence
    assert rest == [ReadSmall(b"content", sha256(b"content"))]


async def test_a_read_error_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in the middle is a failed file."""
    found = source(tmp_path / "a", b"content")

    def fail(path: str, flags: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(file_reader.os, "open", fail)
    (only,) = await read_all(FileReader(found, [Wanted(0)]))
    assert isinstance(only, ReadFailed) and "cannot be read" in only.sentence


async def test_a_link_that_the_user_names_is_read_through(tmp_path: Path) -> None:
    """What was offered under the link's name is the file behind it."""
    (tmp_path / "real").write_bytes(b"1234")
    os.utime(tmp_path / "real", (LONG_AGO, LONG_AGO))
    (tmp_path / "link").symlink_to("real")
    reader = FileReader(SourceTree.walk([tmp_path / "link"]), [Wanted(0)])
    assert await read_all(reader) == [ReadSmall(b"1234", sha256(b"1234"))]


async def test_a_fault_while_reading_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that dies leaves nobody waiting."""
    reader_source = source(tmp_path / "a", b"content")

    def fail(*args: object) -> ReadItem:
        raise MemoryError

    monkeypatch.setattr(FileReader, "_read_small", fail)
    reader = FileReader(reader_source, [Wanted(0)])
    async with asyncio.timeout(30):
        [failed] = await read_all(reader)
    assert isinstance(failed, ReadFailed)


async def test_reading_ahead_is_bounded(tmp_path: Path) -> None:
    """A reader that nobody listens to stops, and can be closed."""
    reader = FileReader(source(tmp_path / "a", os.urandom(READ_AHEAD * 4)), [Wanted(0)])

    def wait_until_full() -> bool:
        with reader._items._changed:
            return reader._items._changed.wait_for(lambda: reader._items._load >= READ_AHEAD, 10)

    assert await asyncio.to_thread(wait_until_full)
    assert reader._items._load <= READ_AHEAD + MAX_DATA_FRAME + 1024
    await reader.close()
    assert all(finished.done() for finished in reader._finished)


def writer_for(target: Path, *files: File, folders: Sequence[Folder] = ()) -> FileWriter:
    folder = SafeFolder.open(target)
    folder.prepare(Manifest(tuple(folders), files))
    return FileWriter(folder, files)


async def test_verified_files_are_kept(tmp_path: Path) -> None:
    """One outcome for each file, in order, and one for the whole."""
    target = tmp_path / "target"
    writer = writer_for(target, File("d/a", 3, 0o600), File("b", 0, 0o644), folders=[Folder("d", 0o755)])
    await writer.begin(0)
    await writer.write(b"on")
    await writer.write(memoryview(b"e"))
    await writer.end(sha256(b"one"))
    await writer.begin(1)
    await writer.end(sha256(b""))
    await writer.settle()
    assert [await writer.next_outcome() for _ in range(3)] == [
        Stored(0, "a", sha256(b"one")),
        Stored(1, "b", sha256(b"")),
        Settled({"b": "b", "d": "d"}),
    ]
    await writer.close()
    assert tree(target) == {"b": b"", "d": None, "d/a": b"one"}


async def test_f6_a_file_with_another_hash_is_not_kept(tmp_path: Path) -> None:
    """Neither the whole nor the hash of a prefix passes."""
    writer = writer_for(tmp_path, File("a", 3, 0o644), File("b", 3, 0o644))
    for index, claimed in enumerate((bytes(32), sha256(b"on"))):
        await writer.begin(index)
        await writer.write(b"one")
        await writer.end(claimed)
        assert await writer.next_outcome() == Mismatched(index)
    await writer.close()
    assert tree(tmp_path) == {}


async def test_closing_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """Neither the part of a file nor the folder for it."""
    writer = writer_for(tmp_path, File("d/a", 3, 0o644), folders=[Folder("d", 0o755)])
    await writer.begin(0)
    await writer.write(b"on")
    await writer.close()
    assert tree(tmp_path) == {}


def parts(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_closing_waits_for_no_holes(tmp_path: Path) -> None:
    """A sender says in a few bytes what takes minutes to hash: what was not begun is left."""
    size = 64 << 30
    writer = writer_for(tmp_path, File("a", size, 0o644))
    await writer.begin(0)
    for _ in range(64):
        await writer.hole(1 << 30)
    await writer.close()
    assert sum(map(os.path.getsize, parts(tmp_path))) < size


async def test_a_full_disk_ends_the_writing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem comes as an outcome, and orders given afterwards do not wait for ever."""

    def fail(self: IncomingFile, data: bytes) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(IncomingFile, "write", fail)
    writer = writer_for(tmp_path, File("a", 1 << 40, 0o644))
    await writer.begin(0)
    await writer.write(b"x")
    failed = await writer.next_outcome()
    assert isinstance(failed, Failed) and isinstance(failed.problem, DiskFull)
    for _ in range(20):
        await writer.write(bytes(MAX_DATA_FRAME))
    await writer.close()
    assert tree(tmp_path) == {}


async def test_a_fault_while_writing_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that dies leaves nobody waiting, and nothing half-written."""

    def fail(self: SafeFolder, stop: Callable[[], bool]) -> dict[str, str]:
        raise RuntimeError("a fault")

    monkeypatch.setattr(SafeFolder, "settle", fail)
    writer = writer_for(tmp_path, File("d/a", 3, 0o644), folders=[Folder("d", 0o755)])
    await writer.settle()
    async with asyncio.timeout(30):
        failed = await writer.next_outcome()
    assert isinstance(failed, Failed) and isinstance(failed.problem.__cause__, RuntimeError)
    await writer.close()
    assert tree(tmp_path) == {}

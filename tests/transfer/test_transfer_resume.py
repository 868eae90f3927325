"""Transfers that find something of what is offered: what is proven to be there does not move again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from crowline.api.transfer import (
    Decision,
    FileFinished,
    OfferMade,
    Progress,
    Summary,
    TransferEvent,
    Warning,
    receive_into,
    send_paths,
)
from crowline.base.errors import CrowlineError, IntegrityFailed, Interrupted
from crowline.transfer.chunks import MIN_CHUNK
from crowline.transfer.names import is_private, private_name
from memory_stream import MemoryStream, stream_pair, tree

LARGE = 8 * MIN_CHUNK + 777


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True)


async def merging(offer: OfferMade) -> Decision:
    return Decision(accept=True, merge=True)


async def transfer(
    paths: list[Path],
    target: Path,
    streams: tuple[MemoryStream, MemoryStream] | None = None,
    decide: Callable[[OfferMade], object] = yes,
    on_receive: Callable[[TransferEvent], None] = lambda event: None,
) -> tuple[Summary | BaseException, Summary | BaseException]:
    one, other = streams or stream_pair()
    async with asyncio.timeout(60):
        sent, received = await asyncio.gather(
            send_paths(one, paths),
            receive_into(other, target, decide=decide, on_event=on_receive),  # type: ignore[arg-type]
            return_exceptions=True,
        )
    return sent, received


async def whole(paths: list[Path], target: Path, decide: Callable[[OfferMade], object] = yes) -> Summary:
    """The summary of a transfer that ends well, and that both sides agree about."""
    sent, received = await transfer(paths, target, decide=decide)
    for one in (sent, received):
        if isinstance(one, BaseException):
            raise one
    assert isinstance(sent, Summary) and isinstance(received, Summary)
    assert (sent.files, sent.bytes, sent.skipped, sent.kept) == (
        received.files,
        received.bytes,
        received.skipped,
        received.kept,
    )
    return received


def content(path: Path) -> bytes:
    return path.read_bytes()


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "large.bin"
    path.parent.mkdir()
    path.write_bytes(os.urandom(LARGE))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files of several sizes, of a link and of an empty folder."""
    root = tmp_path / "notes"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "none").write_bytes(b"")
    (root / "small").write_bytes(b"small")
    (root / "middle").write_bytes(os.urandom(300_000))
    (root / "sub" / "large.bin").write_bytes(os.urandom(LARGE))
    (root / "sub" / "link").symlink_to("../small")
    return root


@pytest.mark.parametrize("cut", [2 * MIN_CHUNK, 5 * MIN_CHUNK + 1234, LARGE - 10])
async def test_a_file_that_was_cut_off_goes_on_where_it_was(large: Path, target: Path, cut: int) -> None:
    """Whole chunks that came before the stream ended are not sent again."""
    sent, received = await transfer([large], target, stream_pair(cut_first=cut))
    assert isinstance(received, Interrupted) and isinstance(sent, CrowlineError)
    assert list(map(is_private, tree(target))) == [True]
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": content(large)}
    assert summary.kept >= (cut - 4096) // MIN_CHUNK * MIN_CHUNK - MIN_CHUNK
    assert 0 < summary.moved < LARGE and not summary.skipped


@pytest.mark.parametrize("position", [0, MIN_CHUNK, 3 * MIN_CHUNK + 5, 4 * MIN_CHUNK - 1])
async def test_a_damaged_part_is_mended(large: Path, target: Path, position: int) -> None:
    """One bit that a crash left wrong costs one chunk."""
    part = bytearray(content(large)[: 4 * MIN_CHUNK])
    part[position] ^= 1
    (target / private_name("large.bin")).write_bytes(part)
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": content(large)}
    assert summary.kept == 3 * MIN_CHUNK


async def test_a_part_that_is_longer_than_the_file_is_cut(large: Path, target: Path) -> None:
    """As when the sender's file has become shorter since."""
    (target / private_name("large.bin")).write_bytes(content(large) + b"more")
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": content(large)} and summary.kept == LARGE


async def test_a_part_of_something_else_is_of_no_use_and_no_harm(large: Path, target: Path) -> None:
    """Nothing of it is kept."""
    (target / private_name("large.bin")).write_bytes(os.urandom(LARGE))
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": content(large)} and summary.kept == 0


async def test_what_is_there_is_skipped(folder: Path, target: Path) -> None:
    """A second transfer of the same things moves nothing, writes nothing, and says so."""
    await whole([folder, folder / "small"], target)
    before = times(target)
    events: list[TransferEvent] = []
    _, received = await transfer([folder, folder / "small"], target, on_receive=events.append)
    assert isinstance(received, Summary)
    assert received.skipped == received.files == 5 and received.moved == 0
    assert set(received.saved) == {"notes", "small"}
    assert all(event.skipped for event in events if isinstance(event, FileFinished))
    assert not any(isinstance(event, Warning) for event in events)
    assert [event for event in events if isinstance(event, Progress)][-1].kept == received.bytes
    assert times(target) == before


async def test_a_folder_that_was_cut_off_goes_on_where_it_was(folder: Path, target: Path) -> None:
    """Again and again into the same folder, some more each time, until it is whole."""
    rounds = 0
    while rounds < 20:
        rounds += 1
        sent, _ = await transfer([folder], target, stream_pair(cut_first=2 * MIN_CHUNK + 5000))
        if isinstance(sent, Summary):
            break
        assert not (target / "notes").exists()
    assert isinstance(sent, Summary) and rounds > 3
    assert tree(target) == {f"notes/{name}": content for name, content in tree(folder).items()} | {
        "notes": None
    }


async def test_a_folder_with_other_contents_gets_another_name_and_moves_only_the_rest(
    folder: Path, target: Path
) -> None:
    """What is there and is the same is copied here."""
    await whole([folder], target)
    (folder / "new").write_bytes(b"new")
    (target / "notes" / "small").write_bytes(b"mine!")
    summary = await whole([folder], target)
    assert summary.saved == ("notes (1)",)
    assert tree(target / "notes (1)") == tree(folder)
    assert (target / "notes" / "small").read_bytes() == b"mine!"
    assert summary.moved == len(b"small") + len(b"new") and summary.skipped == 3


async def test_merging_adds_what_is_new_and_replaces_nothing(folder: Path, target: Path) -> None:
    """With a yes to it, new files go into the folder that is there; others get another name in it."""
    await whole([folder], target)
    (folder / "sub" / "deep").mkdir()
    (folder / "sub" / "deep" / "new").write_bytes(b"new")
    (target / "notes" / "small").write_bytes(b"mine!")
    (target / "notes" / "own").write_bytes(b"own")
    summary = await whole([folder], target, decide=merging)
    assert summary.saved == ("notes",) and summary.skipped == 3
    expected = tree(folder) | {"small": b"mine!", "small (1)": b"small", "own": b"own"}
    assert tree(target / "notes") == expected


async def test_merging_goes_on_with_what_was_broken_off(folder: Path, target: Path) -> None:
    """Where there is no folder to merge with, as in the first place."""
    await transfer([folder], target, stream_pair(cut_first=4 * MIN_CHUNK), decide=merging)
    summary = await whole([folder], target, decide=merging)
    assert summary.kept > MIN_CHUNK
    assert [name for name in tree(target) if "/" not in name] == ["notes"]


async def test_what_somebody_put_into_an_unfinished_folder_is_not_taken_over(
    folder: Path, target: Path
) -> None:
    """A folder called incomplete that holds anything else is left alone."""
    (target / "notes (incomplete)").mkdir()
    (target / "notes (incomplete)" / "diary").write_bytes(b"own")
    (target / "notes (incomplete)" / "small").write_bytes(b"own too")
    await whole([folder], target)
    assert tree(target / "notes") == tree(folder)
    assert tree(target / "notes (incomplete)") == {"diary": b"own", "small": b"own too"}


async def test_an_older_version_of_a_file_in_an_unfinished_folder_is_replaced(
    folder: Path, target: Path
) -> None:
    """It is ours, and nobody has seen it under its name."""
    await transfer([folder], target, stream_pair(cut_first=1_200_000))
    assert (target / "notes (incomplete)" / "small").read_bytes() == b"small"
    (folder / "small").write_bytes(b"a newer version of it")
    await whole([folder], target)
    assert tree(target) == {f"notes/{name}": content for name, content in tree(folder).items()} | {
        "notes": None
    }


async def test_a_file_that_grew_moves_only_what_is_new(large: Path, target: Path) -> None:
    """The older one is the user's, and stays; the newer one is put together from it."""
    await whole([large], target)
    old = content(large)
    with large.open("ab") as file:
        file.write(b"more")
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": old, "large (1).bin": content(large)}
    assert summary.kept == 8 * MIN_CHUNK


async def test_a_sparse_file_stays_sparse(tmp_path: Path, target: Path) -> None:
    """More than 4 GiB, nearly all of it hole: quickly there, and it takes no more room than before."""
    size = (4 << 30) + 5
    with (tmp_path / "disk.img").open("wb") as file:
        file.write(b"begin")
        file.seek(2 << 30)
        file.write(b"middle")
        file.truncate(size)
    summary = await whole([tmp_path / "disk.img"], target)
    status = (target / "disk.img").stat()
    assert summary.bytes == status.st_size == size
    if (tmp_path / "disk.img").stat().st_blocks * 512 < 1 << 30:
        assert status.st_blocks * 512 < 1 << 30
    with (target / "disk.img").open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(2 << 30)
        assert file.read(7) == b"middle\0"


async def test_a_hole_replaces_what_was_there(tmp_path: Path, target: Path) -> None:
    """Zeros that are not sent are zeros all the same."""
    path = tmp_path / "image"
    path.write_bytes(os.urandom(MIN_CHUNK) + bytes(2 * MIN_CHUNK) + b"end")
    (target / private_name("image")).write_bytes(os.urandom(3 * MIN_CHUNK))
    summary = await whole([path], target)
    assert tree(target) == {"image": path.read_bytes()} and summary.kept == 0


async def test_links_arrive_as_links(folder: Path, target: Path) -> None:
    """And point to what they pointed to."""
    await whole([folder], target)
    link = target / "notes" / "sub" / "link"
    assert link.is_symlink() and link.read_bytes() == b"small"


async def test_a_file_that_changes_between_two_transfers_is_put_right(large: Path, target: Path) -> None:
    """What came of the older version is kept where it is the same."""
    await transfer([large], target, stream_pair(cut_first=6 * MIN_CHUNK))
    with large.open("r+b") as file:
        file.seek(MIN_CHUNK + 10)
        file.write(b"changed")
    summary = await whole([large], target)
    assert tree(target) == {"large.bin": content(large)}
    assert 0 < summary.kept < 6 * MIN_CHUNK


async def test_two_receivers_of_the_same_thing_do_not_meet(large: Path, target: Path) -> None:
    """One comes while the other is in the middle, into the same folder: each gets a file of its own."""
    one, other = stream_pair()
    honest, half, go_on, count = one.write, asyncio.Event(), asyncio.Event(), 0

    async def halt(data: bytes) -> None:
        nonlocal count
        await honest(data)
        count += len(data)
        if count > 5 * MIN_CHUNK:
            half.set()
            await go_on.wait()

    one.write = halt  # type: ignore[method-assign,assignment]
    slow = asyncio.create_task(transfer([large], target, (one, other)))
    await half.wait()
    summary = await whole([large], target)
    assert summary.kept == 0
    go_on.set()
    assert all(isinstance(end, Summary) for end in await slow)
    assert tree(target) == {"large.bin": content(large), "large (1).bin": content(large)}


async def test_a_lying_hash_costs_the_file_and_not_what_was_there(large: Path, target: Path) -> None:
    """A sender that swaps bytes after the comparison is found out by the hash of the whole file."""
    (target / private_name("large.bin")).write_bytes(content(large)[: 4 * MIN_CHUNK])
    (target / "own").write_bytes(b"own")
    one, other = stream_pair()
    honest, tail = one.write, content(large)[-300:]

    async def lie(data: bytes) -> None:
        await honest(bytes(data).replace(tail, tail[::-1]))

    one.write = lie  # type: ignore[method-assign,assignment]
    sent, received = await transfer([large], target, (one, other))
    assert isinstance(sent, IntegrityFailed) and isinstance(received, IntegrityFailed)
    assert tree(target) == {"own": b"own"}


KILLED = """
import asyncio, os, sys
from crowline.api.transfer import Decision, Progress, receive_into, send_paths
sys.path.insert(0, sys.argv[3])
from memory_stream import stream_pair

async def yes(offer):
    return Decision(accept=True)

def die(event):
    if isinstance(event, Progress) and event.bytes_done > 4 << 20:
        os.kill(os.getpid(), 9)

clock = iter(range(10**9)).__next__

async def main():
    one, other = stream_pair()
    await asyncio.gather(
        send_paths(one, [sys.argv[1]]),
        receive_into(other, sys.argv[2], decide=yes, on_event=die, clock=clock),
    )

asyncio.run(main())
"""


async def test_a_killed_receiver_is_resumed_by_the_next_process(folder: Path, target: Path) -> None:
    """SIGKILL in the middle of a folder: nothing has its name yet, and what came does not come again."""
    argv = [sys.executable, "-c", KILLED, str(folder), str(target), str(Path(__file__).parent.parent)]
    process = await asyncio.to_thread(subprocess.run, argv, capture_output=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    assert [is_private(name) for name in tree(target) if "/" not in name] == [True]
    summary = await whole([folder], target)
    assert summary.kept > 0
    assert tree(target / "notes") == tree(folder)
    assert [name for name in tree(target) if "/" not in name] == ["notes"]

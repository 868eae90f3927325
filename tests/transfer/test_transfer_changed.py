"""Offers that are not what an earlier transfer left something of: nothing stale stays behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from crowline.api.transfer import Decision, OfferMade, Summary, receive_into, send_paths
from crowline.transfer.chunks import MIN_CHUNK
from crowline.transfer.names import private_name
from memory_stream import stream_pair, tree

SIZE = 3 * MIN_CHUNK + 77


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True)


async def transfer(source: Path, target: Path) -> Summary:
    one, other = stream_pair()
    async with asyncio.timeout(60):
        _, received = await asyncio.gather(send_paths(one, [source]), receive_into(other, target, decide=yes))
    return received


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(SIZE))
    (folder / "small").write_bytes(b"small")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def stage(target: Path) -> Path:
    """What an earlier transfer of the folder left."""
    folder = target / private_name("notes")
    folder.mkdir()
    return folder


async def test_a_part_of_a_newer_version_takes_the_place_of_the_older_one(
    source: Path, target: Path, stage: Path
) -> None:
    """A file came whole, changed at the sender, and the second transfer was broken off in it: the third one
    leaves the newest only."""
    new = (source / "large").read_bytes()
    (stage / "large").write_bytes(os.urandom(SIZE))
    (stage / private_name("notes/large")).write_bytes(new[: 2 * MIN_CHUNK])
    summary = await transfer(source, target)
    assert tree(target / "notes") == tree(source)
    assert summary.kept == 2 * MIN_CHUNK


async def test_nothing_unfinished_stays_in_a_finished_folder(source: Path, target: Path, stage: Path) -> None:
    """Neither the part of a file that is small by now, nor one that no path leads to."""
    (stage / private_name("notes/small")).write_bytes(os.urandom(MIN_CHUNK + 5))
    (stage / ".crowline-0123456789abcdef.part").write_bytes(b"of a process that was killed")
    await transfer(source, target)
    assert tree(target / "notes") == tree(source)


async def test_a_file_in_the_place_of_a_link_gets_its_name(source: Path, target: Path, stage: Path) -> None:
    """It was a link at the sender when the earlier transfer was broken off; nothing is written through it."""
    (stage / "small").symlink_to("large")
    await transfer(source, target)
    assert tree(target / "notes") == tree(source)


async def test_a_folder_in_the_place_of_a_file_is_not_taken_over(
    source: Path, target: Path, stage: Path
) -> None:
    """What it is now gets a folder of its own."""
    (stage / "small").mkdir()
    (stage / "small" / "inside").write_bytes(b"own")
    await transfer(source, target)
    assert tree(target / "notes") == tree(source)
    assert tree(stage) == {"small": None, "small/inside": b"own"}

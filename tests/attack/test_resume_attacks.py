"""Attacks on whoever resumes, F1, F2 and F6: links, planted parts, and questions about what is there."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from crowline.api.transfer import Decision, OfferMade, Summary, receive_into
from crowline.base.errors import CrowlineError, IntegrityFailed, ProtocolViolation
from crowline.base.machine import Buffer
from crowline.transfer.chunks import MIN_CHUNK
from crowline.transfer.manifest import File, Folder, Link, Manifest
from crowline.transfer.messages import (
    Digests,
    FileDone,
    Finished,
    FrameType,
    Keep,
    Small,
    encode,
    frame_header,
    offer_frames,
)
from crowline.transfer.names import incomplete, private_name
from memory_stream import RecordedStream, tree

FOLDERS = (Folder("d", 0o755), Folder("d/e", 0o755))


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True)


def small(index: int, data: bytes) -> bytes:
    return encode(Small(index, hashlib.sha256(data).digest(), data))


async def receive(manifest: Manifest, rest: bytes, target: Path) -> Summary:
    offer = b"".join(offer_frames(manifest))
    return await receive_into(RecordedStream(offer + rest, pause=len(offer)), target, decide=yes)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("d/l", "/etc/passwd"),
        ("d/l", "../x"),
        ("d/e/l", "../../x"),
        ("d/l", ".."),
        ("d/l", "e/../../x"),
        ("d/l", "e/.."),
        ("d/l", "."),
        ("d/l", ""),
        ("d/l", "e//x"),
        ("d/l", "C:\\x"),
        ("d/l", "e\\..\\..\\x"),
        ("d/l", "a\0b"),
        ("l", "x"),
        ("x/l", "y"),
        ("d/e", "y"),
    ],
)
async def test_f1_a_link_that_may_lead_out_is_refused_with_the_whole_offer(
    path: str, to: str, tmp_path: Path
) -> None:
    """Beyond its folder, absolute, by way of another name, or nowhere that every system knows."""
    with pytest.raises(ProtocolViolation):
        await receive(Manifest(FOLDERS, (), (Link(path, to),)), encode(Finished()), tmp_path / "target")
    assert tree(tmp_path) == {}


async def test_f1_a_link_to_the_folder_above_stays_inside(tmp_path: Path) -> None:
    """The control: what may be offered is made as it was offered."""
    await receive(Manifest(FOLDERS, (), (Link("d/e/l", ".."),)), encode(Finished()), tmp_path)
    assert tree(tmp_path) == {"d": None, "d/e": None, "d/e/l": b"-> .."}


async def test_f2_nothing_is_written_through_an_offered_link(tmp_path: Path) -> None:
    """Neither a file below it, which is no part of any offer, nor one of its name."""
    for path in ("d/l/x", "d/l"):
        manifest = Manifest(FOLDERS, (File(path, 1, 0o644),), (Link("d/l", "e"),))
        with pytest.raises(ProtocolViolation):
            await receive(manifest, small(0, b"x"), tmp_path / "target")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("name", [private_name("d"), incomplete("d")])
async def test_f2_a_planted_unfinished_folder_leads_nowhere(name: str, tmp_path: Path) -> None:
    """A link in its place, and links in it in the place of folders, are not followed."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "a").write_bytes(b"precious")
    manifest = Manifest(FOLDERS, (File("d/e/a", 3, 0o644),))
    (target / name).symlink_to(outside)
    await receive(manifest, small(0, b"new") + encode(Finished()), target)
    assert (target / "d" / "e" / "a").read_bytes() == b"new"
    (target / name).unlink()
    (target / "d").rename(target / "first")
    (target / name).mkdir()
    (target / name / "e").symlink_to(outside)
    await receive(manifest, small(0, b"new") + encode(Finished()), target)
    assert (target / "d" / "e" / "a").read_bytes() == b"new"
    assert tree(outside) == {"a": b"precious"}


async def test_f2_an_unfinished_file_with_another_name_is_not_written_to(tmp_path: Path) -> None:
    """A second name of somebody's file, planted where the part would be, loses nothing."""
    precious, target = tmp_path / "precious", tmp_path / "target"
    precious.write_bytes(bytes(2 * MIN_CHUNK))
    target.mkdir()
    (target / private_name("a")).hardlink_to(precious)
    data = os.urandom(MIN_CHUNK)
    rest = frame_header(FrameType.DATA, len(data)) + data + encode(FileDone(0, hashlib.sha256(data).digest()))
    await receive(Manifest((), (File("a", len(data), 0o644),)), rest + encode(Finished()), target)
    assert precious.read_bytes() == bytes(2 * MIN_CHUNK)
    assert (target / "a").read_bytes() == data


async def test_f6_a_sender_is_told_no_digest_of_what_is_there(tmp_path: Path) -> None:
    """It has to show its own first, and learns only that they are not the same."""
    secret = b"pin 4711" + bytes(92)
    (tmp_path / "a").write_bytes(secret)
    offer = b"".join(offer_frames(Manifest((), (File("a", 100, 0o644),))))
    guess = encode(Digests(0, hashlib.sha256(b"x" * 100).digest()))
    stream = RecordedStream(offer + guess, pause=len(offer))
    with pytest.raises(CrowlineError):
        await receive_into(stream, tmp_path, decide=yes)
    assert hashlib.sha256(secret).digest() not in stream.heard and b"4711" not in stream.heard
    assert tree(tmp_path) == {"a": secret}


class Comparer(RecordedStream):
    """A sender that offers one file, gives its digests when it is asked, and says the rest when it was told
    what is needed."""

    def __init__(self, offer: bytes, digests: bytes, rest: bytes) -> None:
        super().__init__(offer, pause=len(offer))
        self._left = [digests, rest]
        self._heard_of = asyncio.Event()

    async def read(self, limit: int) -> bytes | memoryview:
        if said := await super().read(limit):
            return said
        if not self._left:
            return b""
        await self._heard_of.wait()
        self._heard_of.clear()
        return self._left.pop(0)

    async def write(self, data: Buffer) -> None:
        await super().write(data)
        self._heard_of.set()


@pytest.mark.parametrize("claimed", [bytes(32), hashlib.sha256(b"other").digest()])
async def test_f6_a_file_that_is_there_is_not_taken_for_one_with_another_hash(
    claimed: bytes, tmp_path: Path
) -> None:
    """Right digests of the chunks and a wrong one of the whole: said, and what is there stays."""
    (tmp_path / "a").write_bytes(b"mine")
    offer = b"".join(offer_frames(Manifest((), (File("a", 4, 0o644),))))
    digests = encode(Digests(0, hashlib.sha256(b"mine").digest()))
    stream = Comparer(offer, digests, encode(Keep(4)) + encode(FileDone(0, claimed)) + encode(Finished()))
    with pytest.raises(IntegrityFailed):
        await receive_into(stream, tmp_path, decide=yes)
    assert tree(tmp_path) == {"a": b"mine"}


async def test_f6_half_of_a_file_does_not_pass_for_all_of_it(tmp_path: Path) -> None:
    """A sender leaves out the first half of what is here whole and sends the second one: both are hashed, so
    the hash of the second one alone is a lie."""
    chunks = [os.urandom(MIN_CHUNK), os.urandom(MIN_CHUNK)]
    (tmp_path / "a").write_bytes(b"".join(chunks))
    offer = b"".join(offer_frames(Manifest((), (File("a", 2 * MIN_CHUNK, 0o644),))))
    digests = encode(Digests(0, b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)))
    rest = encode(Keep(MIN_CHUNK)) + frame_header(FrameType.DATA, MIN_CHUNK) + chunks[1]
    rest += encode(FileDone(0, hashlib.sha256(chunks[1]).digest())) + encode(Finished())
    with pytest.raises(IntegrityFailed):
        await receive_into(Comparer(offer, digests, rest), tmp_path, decide=yes)
    assert tree(tmp_path) == {"a": b"".join(chunks)}


async def test_f1_the_names_of_unfinished_files_are_nobodys_to_offer(tmp_path: Path) -> None:
    """Else a sender could put there what a later transfer would take for a part of its own."""
    for name in (private_name("a"), private_name("a").upper(), f"d/{private_name('d/a')}"):
        with pytest.raises(ProtocolViolation):
            await receive(Manifest(FOLDERS, (File(name, 1, 0o644),)), small(0, b"x"), tmp_path / "target")
    assert tree(tmp_path) == {}

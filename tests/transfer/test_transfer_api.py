"""Whole transfers between two tasks, in memory and on a real disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from crowline.api.transfer import (
    Decision,
    FileFinished,
    FileStarted,
    OfferMade,
    Progress,
    Summary,
    TransferEvent,
    Warning,
    conversation,
    prepare,
    receive_into,
    send,
    send_paths,
)
from crowline.base.errors import (
    CrowlineError,
    IntegrityFailed,
    Interrupted,
    LocalProblem,
    ProtocolViolation,
    Refused,
)
from crowline.net.files import DiskFull, IncomingFile, SafeFolder
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.messages import (
    GREETING,
    HEADER_BYTES,
    VERSION,
    Abort,
    FileDone,
    FrameType,
    Offer,
    Reason,
    Verdict,
    encode,
    frame_header,
    offer_frames,
)
from crowline.transfer.names import is_private
from memory_stream import MemoryStream, RecordedStream, stream_pair, tree

T = TypeVar("T")
Outcome = Summary | BaseException


async def yes(offer: OfferMade) -> Decision:
    return Decision(accept=True)


async def never_asked(offer: OfferMade) -> Decision:
    raise AssertionError("nobody should be asked")


async def both(sending: Awaitable[Summary], receiving: Awaitable[Summary]) -> tuple[Outcome, Outcome]:
    """How each side ended."""
    one, other = await asyncio.gather(sending, receiving, return_exceptions=True)
    return one, other


async def transfer(
    paths: list[Path],
    target: Path,
    *,
    streams: tuple[MemoryStream, MemoryStream] | None = None,
    decide: Callable[[OfferMade], Awaitable[Decision]] = yes,
    on_send: Callable[[TransferEvent], None] = lambda event: None,
    on_receive: Callable[[TransferEvent], None] = lambda event: None,
) -> tuple[Outcome, Outcome]:
    one, other = streams or stream_pair()
    return await both(
        send_paths(one, paths, on_event=on_send),
        receive_into(other, target, decide=decide, on_event=on_receive),
    )


def expect(outcome: Outcome, kind: type[T]) -> T:
    if isinstance(outcome, BaseException) and not isinstance(outcome, kind):
        raise outcome
    assert isinstance(outcome, kind)
    return outcome


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with files of several sizes, empty ones, and permissions."""
    root = tmp_path / "source"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "none").write_bytes(b"")
    (root / "tool.sh").write_bytes(b"#!/bin/sh\n")
    (root / "tool.sh").chmod(0o750)
    (root / "sub" / "large.bin").write_bytes(os.urandom((3 << 20) + 17))
    (root / "sub" / "ünïcode 日本.txt").write_bytes(b"text")
    return root


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.mark.parametrize("piece", [1 << 20, 50_021])
async def test_files_and_folders_arrive_as_they_were(source: Path, target: Path, piece: int) -> None:
    """Contents, names, empty files and folders, and permissions; both sides agree about the sum."""
    sent: list[TransferEvent] = []
    received: list[TransferEvent] = []
    one, other = await transfer(
        [source, source / "tool.sh"],
        target,
        streams=stream_pair(piece=piece),
        on_send=sent.append,
        on_receive=received.append,
    )
    sender, receiver = expect(one, Summary), expect(other, Summary)
    assert tree(target / "source") == tree(source)
    assert (target / "source" / "tool.sh").stat().st_mode & 0o777 == 0o750
    assert (target / "tool.sh").read_bytes() == b"#!/bin/sh\n"
    assert (sender.files, sender.bytes) == (receiver.files, receiver.bytes) == (5, (3 << 20) + 17 + 24)
    assert set(receiver.saved) == {"source", "tool.sh"}
    for events in (sent, received):
        finished = {event.path: event for event in events if isinstance(event, FileFinished)}
        started = [event.path for event in events if isinstance(event, FileStarted)]
        assert sorted(finished) == sorted(started)
        assert finished["source/none"] == FileFinished("source/none", 0, hashlib.sha256(b"").digest())
        last = [event for event in events if isinstance(event, Progress)][-1]
        assert last.bytes_done == last.bytes_total == sender.bytes


async def test_both_sides_end_their_stream(source: Path, target: Path) -> None:
    """Neither waits for the other's patience to run out."""
    streams = stream_pair()
    await transfer([source], target, streams=streams)
    assert [stream._ended for stream in streams] == [True, True]
    assert not any(stream.aborted for stream in streams)


async def test_a_folder_that_opens_too_late_is_closed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that is cancelled while a slow disk opens the folder leaves no descriptor behind."""
    opening, release, closed = threading.Event(), threading.Event(), threading.Event()
    honest_open, honest_close = SafeFolder.open, SafeFolder.close

    def slow(folder: Path) -> SafeFolder:
        opening.set()
        release.wait(10)
        return honest_open(folder)

    def note(self: SafeFolder) -> None:
        honest_close(self)
        closed.set()

    monkeypatch.setattr(SafeFolder, "open", staticmethod(slow))
    monkeypatch.setattr(SafeFolder, "close", note)
    one, other = stream_pair()
    sender = asyncio.create_task(send_paths(one, [source]))
    receiver = asyncio.create_task(receive_into(other, target, decide=yes))
    assert await asyncio.to_thread(opening.wait, 10)
    receiver.cancel()
    release.set()
    await asyncio.gather(sender, receiver, return_exceptions=True)
    assert await asyncio.to_thread(closed.wait, 10)


async def test_the_listener_is_heard_when_everything_fails_at_once() -> None:
    """The peer's own reason is worth more than the stream's."""

    async def fail(error: Exception) -> None:
        raise error

    with pytest.raises(Refused):
        await conversation.together(fail(OSError("broken stream")), fail(Refused()))
    with pytest.raises(OSError, match="broken stream"):
        await conversation.together(fail(OSError("broken stream")), asyncio.sleep(0))


async def test_64_mebibytes_arrive_whole(tmp_path: Path, target: Path) -> None:
    """A file of many frames, through back-pressure on every side."""
    block = os.urandom(1 << 20)
    with (tmp_path / "large").open("wb") as file:
        for number in range(64):
            file.write(number.to_bytes(4, "big") + block[4:])
    one, other = await transfer([tmp_path / "large"], target)
    assert expect(one, Summary).bytes == expect(other, Summary).bytes == 64 << 20
    with (tmp_path / "large").open("rb") as sent, (target / "large").open("rb") as received:
        assert (
            hashlib.file_digest(sent, "sha256").digest() == hashlib.file_digest(received, "sha256").digest()
        )


async def test_an_empty_folder_arrives(tmp_path: Path, target: Path) -> None:
    """An offer without a file is still an offer."""
    (tmp_path / "empty").mkdir()
    one, other = await transfer([tmp_path / "empty"], target)
    assert expect(one, Summary).files == expect(other, Summary).files == 0
    assert tree(target) == {"empty": None}


async def test_a_thousand_small_files_arrive(tmp_path: Path, target: Path) -> None:
    """Many files cost few writes: their frames are joined."""
    root = tmp_path / "many"
    root.mkdir()
    for number in range(1000):
        (root / f"{number}").write_bytes(b"%d" % number)
    one, other = await transfer([root], target)
    assert expect(one, Summary).files == expect(other, Summary).files == 1000
    assert tree(target / "many") == tree(root)


async def test_progress_comes_at_most_ten_times_a_second(tmp_path: Path, target: Path) -> None:
    """By the clock that is given: of twenty chunks, each is told at 1 s each, two at 1 ms each."""
    (tmp_path / "a").write_bytes(bytes(20 << 20))
    for step, expected in ((1.0, 20), (0.001, 2)):
        now = 0.0

        def clock(step: float = step) -> float:
            nonlocal now
            now += step
            return now

        events: list[TransferEvent] = []
        one, other = stream_pair()
        await both(
            send(one, prepare([tmp_path / "a"]), on_event=events.append, clock=clock),
            receive_into(other, target, decide=yes),
        )
        count = sum(isinstance(event, Progress) for event in events)
        assert count == expected or count == expected + 1


async def test_nothing_is_replaced_and_the_new_name_is_told(source: Path, target: Path) -> None:
    """What has the names of other things gets new ones, in the summary and in words."""
    await transfer([source, source / "tool.sh"], target)
    (target / "tool.sh").write_bytes(b"mine")
    (target / "source" / "none").write_bytes(b"mine")
    warnings: list[TransferEvent] = []
    _, other = await transfer([source, source / "tool.sh"], target, on_receive=warnings.append)
    assert set(expect(other, Summary).saved) == {"source (1)", "tool (1).sh"}
    texts = [event.text for event in warnings if isinstance(event, Warning)]
    assert any("source (1)" in text for text in texts) and any("tool (1).sh" in text for text in texts)
    assert tree(source) == tree(target / "source (1)")
    assert (target / "tool.sh").read_bytes() == (target / "source" / "none").read_bytes() == b"mine"


async def test_the_folder_of_the_decision_counts(source: Path, target: Path, tmp_path: Path) -> None:
    """Somebody who answers "elsewhere" gets it elsewhere."""

    async def elsewhere(offer: OfferMade) -> Decision:
        return Decision(accept=True, folder=tmp_path / "elsewhere")

    await transfer([source / "tool.sh"], target, decide=elsewhere)
    assert list(tree(tmp_path / "elsewhere")) == ["tool.sh"]
    assert tree(target) == {}


async def test_skipped_files_are_not_sent(source: Path, target: Path) -> None:
    """The sender hears which, and the sum is of the others."""

    async def not_the_large_one(offer: OfferMade) -> Decision:
        skip = {i for i, file in enumerate(offer.manifest.files) if file.size > 1 << 20}
        return Decision(accept=True, skip=frozenset(skip))

    events: list[TransferEvent] = []
    one, other = await transfer([source], target, decide=not_the_large_one, on_send=events.append)
    assert expect(one, Summary).files == expect(other, Summary).files == 3
    assert "source/sub/large.bin" not in tree(target)
    assert any(isinstance(event, Warning) and "large.bin" in event.text for event in events)


async def test_f7_a_dotfile_needs_a_yes_of_its_own(tmp_path: Path, target: Path) -> None:
    """What a shell obeys unasked is left out until somebody says otherwise."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "authorized_keys").write_bytes(b"key")
    (home / ".bashrc").write_bytes(b"evil")
    (home / "a").write_bytes(b"a")
    paths = [home / ".ssh", home / ".bashrc", home / "a"]
    events: list[TransferEvent] = []
    await transfer(paths, target, on_receive=events.append)
    assert tree(target) == {"a": b"a"}
    assert sum(isinstance(event, Warning) for event in events) == 2

    async def all_of_it(offer: OfferMade) -> Decision:
        return Decision(accept=True, take_unasked=True)

    await transfer(paths, target / "new", decide=all_of_it)
    assert tree(target / "new") == tree(home)


async def test_a_refusal_reaches_the_sender(source: Path, target: Path) -> None:
    """With the reason that was given, and nothing was written."""

    async def no(offer: OfferMade) -> Decision:
        return Decision(accept=False, reason="not \x1b[31mtoday")

    one, other = await transfer([source], target, decide=no)
    refused = expect(one, Refused)
    assert "declined" in refused.message and "today" in refused.message and refused.message.isprintable()
    assert expect(other, Summary).declined
    assert tree(target) == {}


async def test_too_little_room_is_refused_before_anything_is_sent(tmp_path: Path, target: Path) -> None:
    """The receiver sees a local problem, the sender hears that the other disk is full."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 43)
    one, other = await transfer([tmp_path / "huge"], target)
    expect(other, DiskFull)
    assert "disk" in expect(one, Refused).message
    assert tree(target) == {}


async def test_a_disk_that_fills_up_is_told_to_both(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a file: exit code 8 here, a refusal with the reason there, and a part to resume."""
    written = 0
    real_write = IncomingFile.write

    def write(self: IncomingFile, data: bytes) -> None:
        nonlocal written
        written += len(data)
        if written > 1 << 20:
            raise DiskFull("The disk is full: could not write large.bin.")
        real_write(self, data)

    monkeypatch.setattr(IncomingFile, "write", write)
    one, other = await transfer([source / "sub" / "large.bin"], target)
    assert expect(other, LocalProblem).exit_code == 8
    assert "disk is too full" in expect(one, Refused).message
    assert list(map(is_private, tree(target))) == [True]


async def test_a_file_that_changes_while_it_is_sent_is_told_to_both(tmp_path: Path, target: Path) -> None:
    """It is not kept, and the file after it is."""
    (tmp_path / "a").write_bytes(os.urandom(16 << 20))
    (tmp_path / "b").write_bytes(b"whole")

    def on_send(event: TransferEvent) -> None:
        if isinstance(event, Progress) and event.bytes_done == 1 << 20:
            os.truncate(tmp_path / "a", 15 << 20)

    one, other = await transfer([tmp_path / "a", tmp_path / "b"], target, on_send=on_send)
    assert "a became shorter" in expect(one, LocalProblem).message
    assert "became shorter" in expect(other, IntegrityFailed).message
    assert {name: content for name, content in tree(target).items() if not is_private(name)} == {
        "b": b"whole"
    }


async def test_f6_a_damaged_file_is_told_to_both(tmp_path: Path, target: Path) -> None:
    """One flipped bit on the way: exit code 9 on both sides, and the file is not kept."""
    (tmp_path / "a").write_bytes(b"content of a file")
    (tmp_path / "b").write_bytes(b"another")
    one, other = stream_pair()
    real_write = one.write

    async def flip(data: bytes) -> None:
        await real_write(bytes(data).replace(b"content", b"c0ntent"))

    one.write = flip  # type: ignore[method-assign,assignment]
    ends = await transfer([tmp_path / "a", tmp_path / "b"], target, streams=(one, other))
    for end in ends:
        assert expect(end, IntegrityFailed).exit_code == 9
    assert tree(target) == {"b": b"another"}


async def test_a_cancelled_receiver_says_so_and_leaves_at_most_a_part(source: Path, target: Path) -> None:
    """Ctrl-C on one side is a sentence on the other."""
    one, other = stream_pair()
    receiving = asyncio.create_task(
        receive_into(
            other,
            target,
            decide=yes,
            on_event=lambda event: receiving.cancel() if isinstance(event, FileStarted) else None,
        )
    )
    sent, received = await both(send_paths(one, [source / "sub" / "large.bin"]), receiving)
    assert isinstance(received, asyncio.CancelledError)
    assert "stopped the transfer" in expect(sent, Interrupted).message
    assert all(map(is_private, tree(target)))


async def test_a_cancelled_sender_says_so_and_at_most_a_part_is_left(source: Path, target: Path) -> None:
    """The abort arrives between two frames, although a frame was being written."""
    one, other = stream_pair(piece=4096)
    sending = asyncio.create_task(send_paths(one, [source / "sub" / "large.bin"]))

    def on_receive(event: TransferEvent) -> None:
        if isinstance(event, Progress) and event.bytes_done:
            sending.cancel()

    sent, received = await both(sending, receive_into(other, target, decide=yes, on_event=on_receive))
    assert isinstance(sent, asyncio.CancelledError)
    assert "stopped the transfer" in expect(received, Interrupted).message
    assert all(map(is_private, tree(target)))


async def test_a_sender_that_leaves_while_the_user_thinks_ends_the_question(
    source: Path, target: Path
) -> None:
    """Nobody is left in front of a prompt for an offer that is gone."""
    one, other = stream_pair()
    asked = asyncio.Event()

    async def think(offer: OfferMade) -> Decision:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("never reached")

    sending = asyncio.create_task(send_paths(one, [source]))
    receiving = asyncio.create_task(receive_into(other, target, decide=think))
    await asked.wait()
    sending.cancel()
    _, received = await both(sending, receiving)
    expect(received, Interrupted)


async def test_a_stuck_stream_does_not_hold_up_the_farewell(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A side that stops tries to say why for a moment only, then drops the stream."""
    monkeypatch.setattr(conversation, "FAREWELL_SECONDS", 0.01)
    one, _ = stream_pair()
    is_stuck = asyncio.Event()

    async def stuck(data: bytes) -> None:
        is_stuck.set()
        await asyncio.Event().wait()

    one.write = stuck  # type: ignore[method-assign,assignment]
    sending = asyncio.create_task(send_paths(one, [source]))
    await is_stuck.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert one.aborted


async def conversation_of(source: Path, target: Path) -> tuple[bytes, bytes]:
    """Everything that both sides of a good transfer say."""
    one, other = stream_pair()
    one.keep = other.keep = True
    ends = await transfer([source], target, streams=(one, other))
    for end in ends:
        expect(end, Summary)
    return bytes(one.written), bytes(other.written)


def boundaries(stream: bytes) -> list[int]:
    """The offsets between frames, the start and not the end."""
    found = [0, len(GREETING)] if stream.startswith(GREETING) else [0]
    while found[-1] < len(stream):
        length = int.from_bytes(stream[found[-1] + 1 : found[-1] + HEADER_BYTES], "big")
        found.append(found[-1] + HEADER_BYTES + length)
    return found[:-1]


def small_tree(root: Path) -> Path:
    (root / "tree" / "sub").mkdir(parents=True)
    (root / "tree" / "a").write_bytes(os.urandom(3000))
    (root / "tree" / "empty").write_bytes(b"")
    (root / "tree" / "sub" / "b").write_bytes(os.urandom(5000))
    return root / "tree"


def assert_nothing_looks_whole(target: Path, original: Path) -> None:
    """No part is left, and a folder of which something is missing says so."""
    for name, content in tree(target).items():
        assert ".crowline" not in name
        assert name.partition("/")[0] == "tree (incomplete)"
        if content is not None:
            assert content == (original / name.partition("/")[2]).read_bytes()


async def test_a_sender_that_vanishes_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    """At every frame boundary and many bytes between: both sides say so, and nothing half-written is left."""
    original = small_tree(tmp_path)
    said, _ = await conversation_of(original, tmp_path / "whole")
    cuts = {*boundaries(said), *range(1, len(said), 397), *range(1, 40), len(said) - 1} - {0}
    for cut in sorted(cuts):
        target = tmp_path / f"cut-{cut}"
        streams = stream_pair(piece=700, cut_first=cut)
        sent, received = await transfer([original], target, streams=streams)
        expect(received, Interrupted)
        expect(sent, CrowlineError)
        assert_nothing_looks_whole(target, original)


async def test_a_receiver_that_vanishes_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    """A sender that did not hear the last word does not believe that everything arrived."""
    original = small_tree(tmp_path)
    _, answers = await conversation_of(original, tmp_path / "whole")
    for cut in range(1, len(answers)):
        target = tmp_path / f"cut-{cut}"
        streams = stream_pair(cut_second=cut)
        sent, received = await transfer([original], target, streams=streams)
        expect(sent, Interrupted)
        if isinstance(received, Summary):
            assert tree(target / "tree") == tree(original)
        else:
            expect(received, CrowlineError)
            assert_nothing_looks_whole(target, original)


async def test_a_corrupted_stream_is_one_of_our_errors(tmp_path: Path) -> None:
    """A flipped byte ends in an error of the project, or in the same contents under another name or mode."""
    original = small_tree(tmp_path)
    said, _ = await conversation_of(original, tmp_path / "whole")
    offer = boundaries(said)[3]
    contents = sorted(content for content in tree(original).values() if content)
    for position in [*range(offer + 40), *range(offer, len(said), 211)]:
        broken = bytearray(said)
        broken[position] ^= 0x55
        stream = RecordedStream(bytes(broken if position >= offer else broken[:offer]), pause=offer)
        target = tmp_path / f"at-{position}"
        try:
            await receive_into(stream, target, decide=yes)
        except CrowlineError:
            continue
        assert sorted(content for content in tree(target).values() if content) == contents


OFFER = b"".join(offer_frames(Manifest((Folder("d", 0o755),), (File("d/a", 10, 0o644),))))


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("more than claimed", OFFER + frame_header(FrameType.DATA, 11) + bytes(11)),
        ("less than claimed", OFFER + encode(FileDone(0, bytes(32)))),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        ("a later version", GREETING + encode(Offer(VERSION + 1, 0, 0))),
        ("an answer to nothing", OFFER + encode(Verdict(0, True))),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_told_apart(name: str, stream: bytes, target: Path) -> None:
    """It ends in a protocol violation here, an abort or refusal there, and nothing on the disk."""
    recorded = RecordedStream(stream)
    with pytest.raises(ProtocolViolation) as violation:
        await receive_into(recorded, target, decide=yes)
    assert violation.value.exit_code == 1
    last = boundaries(bytes(recorded.heard))[-1]
    assert recorded.heard[last] in (FrameType.ABORT, FrameType.REJECT)
    assert tree(target) == {}


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Reason.DISK_FULL, Refused),
        (Reason.LOCAL, Refused),
        (Reason.CANCELLED, Interrupted),
        (Reason.OTHER, Refused),
        (Reason.INTEGRITY, IntegrityFailed),
        (Reason.PROTOCOL, ProtocolViolation),
        (Reason.VERSION, ProtocolViolation),
    ],
)
async def test_every_reason_to_stop_has_its_error(
    source: Path, reason: Reason, kind: type[CrowlineError]
) -> None:
    """With the other side's words, made safe to print."""
    with pytest.raises(kind) as error:
        await send_paths(RecordedStream(encode(Abort(reason, "so\x07 be it"))), [source])
    assert "so\\x07 be it" in error.value.message

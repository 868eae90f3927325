"""What is compared of a file, and how the two machines speak about it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.errors import UsageError
from crowline.transfer.chunks import (
    DIGEST_BYTES,
    MAX_CHUNKS,
    MIN_CHUNK,
    Comparison,
    Run,
    chunk_count,
    chunk_size,
    comparable,
)
from crowline.transfer.endings import PeerBroke
from crowline.transfer.manifest import MAX_TOTAL_BYTES, File, Manifest
from crowline.transfer.messages import (
    GREETING,
    MAX_CONTROL_FRAME,
    Accept,
    Digests,
    FileDone,
    FileFailed,
    Hole,
    Keep,
    Message,
    Reason,
    Small,
    Want,
    encode,
    offer_frames,
)
from crowline.transfer.receiver import (
    DataArrived,
    DigestsArrived,
    FileBegan,
    FileEnded,
    FileLost,
    HoleArrived,
    KeepArrived,
    Offered,
    Receiver,
    ReceiverEvent,
    SmallArrived,
)
from crowline.transfer.sender import Accepted, Compared, Judged, Sender, SenderEvent, Wanted

SIZE = 3 * MIN_CHUNK + 10
CONTENT = bytes(range(256)) * (SIZE // 256 + 1)
CONTENT = CONTENT[:SIZE]
HASH = hashlib.sha256(CONTENT).digest()
MANIFEST = Manifest((), (File("a", SIZE, 0o644), File("b", 5, 0o644), File("c", SIZE, 0o644)))
SMALL = Small(1, hashlib.sha256(b"small").digest(), b"small")


def said(machine: Sender | Receiver) -> bytes:
    return b"".join(bytes(piece) for piece in iter(machine.next_transmit, None))


def heard(machine: Sender) -> list[SenderEvent]:
    return list(iter(machine.next_event, None))


def feed(receiver: Receiver, data: bytes) -> list[ReceiverEvent]:
    receiver.receive(data)
    return list(iter(receiver.next_event, None))


def comparing(length: int = 3 * MIN_CHUNK) -> tuple[Sender, Receiver]:
    """Two sides, the second of which has something of the first file."""
    sender, receiver = Sender(MANIFEST), Receiver()
    feed(receiver, said(sender))
    receiver.accept(skip=[2], compare={0: length})
    sender.receive(said(receiver))
    assert heard(sender) == [Accepted((Wanted(1), Wanted(0, length)))]
    return sender, receiver


def test_chunks_are_few_and_their_digests_fit_one_frame() -> None:
    """Whatever the size of the file."""
    for size in (
        0,
        1,
        MIN_CHUNK,
        MIN_CHUNK * MAX_CHUNKS,
        MIN_CHUNK * MAX_CHUNKS + 1,
        1 << 50,
        MAX_TOTAL_BYTES,
    ):
        assert chunk_count(size, size) <= MAX_CHUNKS
        assert chunk_size(size) == MIN_CHUNK or chunk_count(size, size) > MAX_CHUNKS // 2
    assert len(encode(Digests(0, bytes(DIGEST_BYTES * MAX_CHUNKS)))) < MAX_CONTROL_FRAME


@pytest.mark.parametrize(
    ("there", "size", "expected"),
    [
        (0, 0, 0),
        (1, 0, None),
        (0, 10, None),
        (9, 10, None),
        (10, 10, 10),
        (11, 10, 10),
        (MIN_CHUNK - 1, SIZE, None),
        (MIN_CHUNK, SIZE, MIN_CHUNK),
        (SIZE - 1, SIZE, 3 * MIN_CHUNK),
        (SIZE, SIZE, SIZE),
    ],
)
def test_whole_chunks_or_all_is_compared(there: int, size: int, expected: int | None) -> None:
    """Half a chunk proves nothing."""
    assert comparable(there, size) == expected


@given(st.integers(1, 9 * MIN_CHUNK), st.data())
def test_runs_cover_the_file_and_agree_with_the_bits(size: int, data: st.DataObject) -> None:
    """From the first byte to the last, nothing twice, and kept exactly where `keeps` says so."""
    length = comparable(data.draw(st.integers(0, size)), size) or 0
    count = chunk_count(length, size)
    comparison = Comparison(size, length, data.draw(st.integers(0, (1 << count) - 1)))
    assert Comparison.decode(size, length, comparison.encode()) == comparison
    position = 0
    for run in comparison.runs():
        assert run.start == position < run.end
        position = run.end
        assert comparison.keeps(run.start, run.end) == run.kept
        assert not comparison.keeps(run.start, run.end + 1) or run.end == size
    assert position == size
    assert comparison.is_whole == (comparison.kept == size)


def test_a_bitmap_of_another_length_is_none() -> None:
    """Too short, too long, or with a bit beyond the last chunk."""
    for bitmap in (b"", b"\0\0", b"\x08"):
        assert Comparison.decode(SIZE, 3 * MIN_CHUNK, bitmap) is None


def test_runs_are_as_few_as_there_are() -> None:
    """Neighbours of a kind are one run."""
    assert list(Comparison(SIZE, 3 * MIN_CHUNK, 0b010).runs()) == [
        Run(0, MIN_CHUNK, True),
        Run(MIN_CHUNK, 2 * MIN_CHUNK, False),
        Run(2 * MIN_CHUNK, 3 * MIN_CHUNK, True),
        Run(3 * MIN_CHUNK, SIZE, False),
    ]


def test_only_what_is_missing_moves() -> None:
    """Digests, answer, kept and other runs, and the verdict: from the first frame to the last."""
    sender, receiver = comparing()
    sender.digests(0, bytes(96))
    assert feed(receiver, said(sender)) == [DigestsArrived(0, bytes(96))]
    receiver.want(0, 0b010)
    sender.receive(said(receiver))
    assert heard(sender) == [Compared(0, Comparison(SIZE, 3 * MIN_CHUNK, 0b010))]
    sender.small(SMALL.data, SMALL.sha256)
    sender.keep(MIN_CHUNK)
    sender.send(CONTENT[:MIN_CHUNK])
    sender.keep(MIN_CHUNK)
    sender.hole(10)
    sender.file_done(HASH)
    receiver.receive(said(sender))
    events = [
        DataArrived(memoryview(bytes(event.data))) if isinstance(event, DataArrived) else event
        for event in iter(receiver.next_event, None)
    ]
    assert events[:-1] == [
        SmallArrived(1, SMALL.sha256, b"small"),
        FileBegan(0),
        KeepArrived(MIN_CHUNK),
        DataArrived(memoryview(CONTENT[:MIN_CHUNK])),
        KeepArrived(MIN_CHUNK),
        HoleArrived(10),
        FileEnded(0, HASH),
    ]
    receiver.verdict(1, True)
    receiver.verdict(0, True)
    receiver.finish()
    sender.receive(said(receiver))
    assert heard(sender)[:2] == [Judged(i, True, Reason.NONE, "") for i in (1, 0)]
    assert sender.over and receiver.succeeded


def test_a_file_given_up_while_it_is_compared_costs_nothing_else() -> None:
    """The answer that is on its way is no fault of the receiver's, and its driver's late one none either."""
    sender, receiver = comparing()
    sender.small(SMALL.data, SMALL.sha256)
    sender.digests(0, bytes(96))
    sender.file_failed("It changed.")
    sent = said(sender)
    events = feed(receiver, sent)
    assert DigestsArrived(0, bytes(96)) in events and FileLost(0, "It changed.") in events
    receiver.want(0, 0)
    assert not said(receiver)
    sender.receive(encode(Want(0, b"\0")))
    assert not heard(sender)


LIES: list[tuple[str, list[Message]]] = [
    ("digests that nobody asked for", [Digests(1, b"")]),
    ("digests twice", [Digests(0, bytes(96)), Digests(0, bytes(96))]),
    ("too few digests", [Digests(0, bytes(64))]),
    ("too many digests", [Digests(0, bytes(128))]),
    ("half a digest", [Digests(0, bytes(95))]),
    ("no waiting for the answer", [SMALL, Digests(0, bytes(96)), Keep(MIN_CHUNK)]),
    ("no digests at all", [SMALL, Hole(SIZE)]),
    ("a small file of another size", [Small(1, bytes(32), b"smal")]),
    ("a small file out of turn", [Small(0, bytes(32), b"small")]),
    ("a small file after a part of it", [Hole(1), Small(1, bytes(32), b"small")]),
    ("keeping what was never there", [Keep(5)]),
    ("a hole beyond the end", [Hole(6)]),
    ("a file that ends in its hole", [Hole(4), FileDone(1, bytes(32))]),
]


@pytest.mark.parametrize(("name", "messages"), LIES, ids=[name for name, _ in LIES])
def test_a_sender_that_lies_about_chunks_is_broken_off(name: str, messages: list[Message]) -> None:
    """Nothing of the file passes for whole, and the sender hears that it was not understood."""
    _, receiver = comparing()
    events = feed(receiver, b"".join(map(encode, messages)))
    assert isinstance(events[-1], PeerBroke)
    assert not any(isinstance(event, FileEnded | KeepArrived) for event in events)


@pytest.mark.parametrize(
    "runs", [[Keep(MIN_CHUNK + 1)], [Hole(MIN_CHUNK), Keep(1)], [Keep(3 * MIN_CHUNK + 1)]]
)
def test_only_what_the_receiver_has_can_be_left_out(runs: list[Message]) -> None:
    """Not one byte of a chunk that is missing, nor of what was not compared."""
    _, receiver = comparing()
    feed(receiver, encode(SMALL) + encode(Digests(0, bytes(96))))
    receiver.want(0, 0b010)
    events = feed(receiver, b"".join(map(encode, runs)))
    assert isinstance(events[-1], PeerBroke)


@pytest.mark.parametrize(
    "answer",
    [Want(0, b""), Want(0, b"\0\0"), Want(0, b"\xff"), Want(1, b"\0"), Want(2, b"\0")],
    ids=["short", "long", "chunks that are not", "a file not compared", "a file not taken"],
)
def test_a_receiver_that_lies_about_chunks_is_broken_off(answer: Message) -> None:
    """An answer is for digests that were sent, once, and for as many chunks."""
    sender, _ = comparing()
    sender.digests(0, bytes(96))
    sender.receive(encode(answer))
    assert isinstance(heard(sender)[-1], PeerBroke)


def test_an_answer_before_the_digests_or_a_second_one_is_broken_off() -> None:
    """Nobody can know what was not said."""
    early, _ = comparing()
    early.receive(encode(Want(0, b"\0")))
    assert isinstance(heard(early)[-1], PeerBroke)
    twice, _ = comparing()
    twice.digests(0, bytes(96))
    twice.receive(encode(Want(0, b"\0")) * 2)
    assert isinstance(heard(twice)[-1], PeerBroke)


def test_calls_that_make_no_sense_are_the_callers_fault() -> None:
    """A file to compare does not begin before it is compared, and only what the receiver has is kept."""
    sender, _ = comparing()
    with pytest.raises(UsageError):
        sender.digests(1, b"")
    with pytest.raises(UsageError):
        sender.digests(0, bytes(64))
    with pytest.raises(UsageError):
        sender.keep(5)
    with pytest.raises(UsageError):
        sender.small(b"smal", bytes(32))
    sender.small(SMALL.data, SMALL.sha256)
    with pytest.raises(UsageError):
        sender.hole(1)
    sender.digests(0, bytes(96))
    with pytest.raises(UsageError):
        sender.hole(1)
    sender.receive(encode(Want(0, b"\2")))
    with pytest.raises(UsageError):
        sender.keep(MIN_CHUNK + 1)


@pytest.mark.parametrize(
    "line", [b"crowline/chat 1\n", b"crowline/send 9\n", b"GET / HTTP/1.1\r\n", bytes(30)]
)
def test_another_kind_of_stream_is_a_sentence(line: bytes) -> None:
    """On either side."""
    receiver = Receiver()
    (broke,) = feed(receiver, line)
    assert isinstance(broke, PeerBroke)
    sender = Sender(MANIFEST)
    said(sender)
    sender.receive(line)
    (heard_broke,) = heard(sender)
    assert isinstance(heard_broke, PeerBroke)
    if b"chat" in line:
        assert "crowline chat" in broke.sentence and "another command" in heard_broke.sentence


def test_the_greeting_may_come_in_any_pieces() -> None:
    """Byte by byte, and with what follows."""
    receiver = Receiver()
    stream = b"".join(offer_frames(MANIFEST))
    assert stream.startswith(GREETING)
    events = [event for byte in stream for event in feed(receiver, bytes([byte]))]
    assert events == [Offered(MANIFEST)]


def test_an_answer_for_more_than_a_file_has_breaks_the_transfer() -> None:
    """The sender checks lengths to compare against its offer."""
    sender = Sender(MANIFEST)
    said(sender)
    sender.receive(encode(Accept(compare={1: 6})))
    assert isinstance(heard(sender)[-1], PeerBroke)


def test_a_file_failed_before_its_digests_is_only_lost() -> None:
    """It was not even readable when it was to be compared."""
    sender, receiver = comparing()
    sender.small(SMALL.data, SMALL.sha256)
    sender.file_failed("It is gone.")
    events = feed(receiver, said(sender))
    assert FileLost(0, "It is gone.") in events
    assert encode(FileFailed(0, "")) != b""

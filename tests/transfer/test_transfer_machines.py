"""Sender and receiver joined by function calls."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.transfer.endings import PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.manifest import File, Folder, Manifest
from crowline.transfer.messages import (
    GREETING,
    MAX_CONTROL_FRAME,
    MAX_DATA_FRAME,
    VERSION,
    Accept,
    Entries,
    FileDone,
    FileFailed,
    Finished,
    FrameType,
    Message,
    Offer,
    Reason,
    Reject,
    Verdict,
    encode,
    frame_header,
)
from crowline.transfer.receiver import (
    AllArrived,
    DataArrived,
    FileBegan,
    FileEnded,
    FileLost,
    Offered,
    Receiver,
    ReceiverEvent,
)
from crowline.transfer.sender import Accepted, Completed, Judged, Rejected, Sender, SenderEvent, Wanted

CONTENTS = {"notes/a.txt": b"alpha", "notes/empty": b"", "b.bin": bytes(range(256)) * 8}
MANIFEST = Manifest(
    (Folder("notes", 0o755),),
    tuple(File(path, len(content), 0o644) for path, content in CONTENTS.items()),
)
HASHES = [hashlib.sha256(content).digest() for content in CONTENTS.values()]


def transmits(machine: Sender | Receiver) -> bytes:
    """Everything that a machine wants to send now."""
    out = bytearray()
    while (piece := machine.next_transmit()) is not None:
        out += piece
    return bytes(out)


def sender_events(sender: Sender) -> list[SenderEvent]:
    return list(iter(sender.next_event, None))


def receiver_events(receiver: Receiver, *, accept: bool = False) -> list[ReceiverEvent]:
    """Events with the data copied, so that they can be compared; an offer is accepted at once if asked."""
    events: list[ReceiverEvent] = []
    while (event := receiver.next_event()) is not None:
        if accept and isinstance(event, Offered):
            receiver.accept()
        events.append(DataArrived(memoryview(bytes(event.data))) if isinstance(event, DataArrived) else event)
    return events


def feed(receiver: Receiver, data: Buffer, *, accept: bool = False) -> list[ReceiverEvent]:
    receiver.receive(data)
    return receiver_events(receiver, accept=accept)


def tell(receiver: Receiver, *messages: Message) -> list[ReceiverEvent]:
    return feed(receiver, GREETING + b"".join(map(encode, messages)))


def data(content: bytes) -> bytes:
    return frame_header(FrameType.DATA, len(content)) + content


def offer_of(manifest: Manifest) -> bytes:
    return transmits(Sender(manifest))


def receiving(manifest: Manifest = MANIFEST, skip: Iterable[int] = ()) -> Receiver:
    """A receiver that has accepted `manifest`."""
    receiver = Receiver()
    assert feed(receiver, offer_of(manifest)) == [Offered(manifest)]
    receiver.accept(skip)
    transmits(receiver)
    return receiver


def sending(manifest: Manifest = MANIFEST, accept: Accept | None = None) -> Sender:
    """A sender whose offer has been accepted."""
    sender = Sender(manifest)
    transmits(sender)
    sender.receive(encode(accept or Accept()))
    assert isinstance(sender.next_event(), Accepted)
    return sender


def send_file(sender: Sender, content: bytes) -> None:
    for start in range(0, len(content), MAX_DATA_FRAME):
        sender.send(content[start : start + MAX_DATA_FRAME])
    sender.file_done(hashlib.sha256(content).digest())


def whole_conversation() -> bytes:
    """Everything that a sender of MANIFEST says, to the end."""
    sender = Sender(MANIFEST)
    said = transmits(sender)
    sender.receive(encode(Accept()))
    for content in CONTENTS.values():
        send_file(sender, content)
    return said + transmits(sender)


def test_everything_offered_arrives() -> None:
    """Offer, choice, data, verdicts and farewell, from the first frame to the last."""
    sender, receiver = Sender(MANIFEST), Receiver()
    assert feed(receiver, transmits(sender)) == [Offered(MANIFEST)]
    receiver.accept()
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [Accepted((Wanted(0), Wanted(1), Wanted(2)))]
    for content in CONTENTS.values():
        send_file(sender, content)
    assert feed(receiver, transmits(sender)) == [
        FileBegan(0),
        DataArrived(memoryview(CONTENTS["notes/a.txt"])),
        FileEnded(0, HASHES[0]),
        FileBegan(1),
        FileEnded(1, HASHES[1]),
        FileBegan(2),
        DataArrived(memoryview(CONTENTS["b.bin"])),
        FileEnded(2, HASHES[2]),
        AllArrived(),
    ]
    for index in range(3):
        receiver.verdict(index, True)
    receiver.finish()
    assert receiver.over and receiver.succeeded
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [Judged(i, True, Reason.NONE, "") for i in range(3)] + [Completed()]
    assert sender.over


def test_only_wanted_files_are_sent() -> None:
    """A skipped file is neither asked for nor sent."""
    receiver = Receiver()
    feed(receiver, offer_of(MANIFEST))
    receiver.accept(skip=[0, 2])
    sender = Sender(MANIFEST)
    transmits(sender)
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [Accepted((Wanted(1),))]
    send_file(sender, b"")
    assert feed(receiver, transmits(sender)) == [FileBegan(1), FileEnded(1, HASHES[1]), AllArrived()]


def test_nothing_wanted_ends_well() -> None:
    """An offer of which every file is skipped, or of no file at all, is over at once."""
    for manifest, skip in ((MANIFEST, range(3)), (Manifest((Folder("n", 0o755),), ()), range(0))):
        sender, receiver = Sender(manifest), Receiver()
        feed(receiver, transmits(sender))
        receiver.accept(skip)
        sender.receive(transmits(receiver))
        assert sender_events(sender) == [Accepted(())]
        assert feed(receiver, transmits(sender)) == [AllArrived()]
        receiver.finish()
        sender.receive(transmits(receiver))
        assert sender_events(sender) == [Completed()]


def test_the_sender_hears_a_refusal() -> None:
    """The reason and the words of a refusal reach the other side."""
    sender, receiver = Sender(MANIFEST), Receiver()
    feed(receiver, transmits(sender))
    receiver.reject(Reason.DECLINED, "no, thank you")
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [Rejected(Reason.DECLINED, "no, thank you")]
    assert sender.over and receiver.over and not receiver.succeeded


def test_the_sender_hears_why_the_receiver_stopped() -> None:
    """A full disk in the middle is said, and no more data follows."""
    sender, receiver = sending(), receiving()
    sender.send(b"al")
    receiver.abort(Reason.DISK_FULL, "the disk is full")
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [PeerStopped(Reason.DISK_FULL, "the disk is full")]
    assert sender.next_transmit() is None
    sender.send(b"pha")
    assert sender.next_transmit() is None


def test_the_receiver_hears_why_the_sender_stopped() -> None:
    """An abort is delivered after the data frame that was begun, not inside it."""
    sender, receiver = sending(), receiving()
    sender.send(b"alp")
    assert feed(receiver, sender.next_transmit() or b"") == []
    sender.abort(Reason.CANCELLED, "stopped by hand")
    assert feed(receiver, transmits(sender)) == [
        FileBegan(0),
        DataArrived(memoryview(b"alp")),
        PeerStopped(Reason.CANCELLED, "stopped by hand"),
    ]


def test_a_failed_file_is_told_and_the_next_goes_on() -> None:
    """One file that changed while it was read does not cost the others."""
    sender, receiver = sending(), receiving()
    sender.send(b"alp")
    sender.file_failed("it shrank")
    send_file(sender, b"")
    assert feed(receiver, transmits(sender)) == [
        FileBegan(0),
        DataArrived(memoryview(b"alp")),
        FileLost(0, "it shrank"),
        FileBegan(1),
        FileEnded(1, HASHES[1]),
    ]


def test_a_bad_verdict_reaches_the_sender() -> None:
    """A hash that does not match is the sender's to know."""
    sender, receiver = sending(), receiving()
    send_file(sender, b"alpha")
    feed(receiver, transmits(sender))
    receiver.verdict(0, False, Reason.INTEGRITY, "the hash differs")
    sender.receive(transmits(receiver))
    assert sender_events(sender) == [Judged(0, False, Reason.INTEGRITY, "the hash differs")]


@given(st.lists(st.integers(1, 700), max_size=30))
def test_any_split_gives_the_same_files(cuts: list[int]) -> None:
    """The pieces in which the stream comes do not matter."""
    stream = whole_conversation()
    receiver = Receiver()
    files: dict[int, bytes] = {}
    ended: list[int] = []
    position = 0
    for cut in [*cuts, len(stream)]:
        for event in feed(receiver, stream[position : position + cut], accept=True):
            match event:
                case FileBegan(index):
                    files[index] = b""
                case DataArrived(view):
                    files[index] += view
                case FileEnded(index, sha256):
                    assert hashlib.sha256(files[index]).digest() == sha256
                    ended.append(index)
                    receiver.verdict(index, True)
        position += cut
    assert list(files.values()) == list(CONTENTS.values())
    assert ended == [0, 1, 2]
    receiver.finish()
    assert receiver.succeeded


def test_data_is_handed_out_without_a_copy() -> None:
    """A piece of a file is a view into the very buffer that was received."""
    receiver = receiving()
    buffer = bytearray(data(b"alpha"))
    receiver.receive(buffer)
    assert receiver.next_event() == FileBegan(0)
    event = receiver.next_event()
    assert isinstance(event, DataArrived) and event.data.obj is buffer


def test_an_end_at_any_byte_is_one_ending() -> None:
    """However short the stream is cut, the receiver says once that the peer left."""
    stream = whole_conversation()
    for length in range(len(stream)):
        receiver = Receiver()
        feed(receiver, stream[:length], accept=True)
        receiver.receive_end()
        assert receiver_events(receiver) == [PeerLeft()], length
        assert receiver.over and not receiver.succeeded


def test_an_end_before_the_last_word_is_an_ending_for_the_sender_too() -> None:
    """A sender that has not heard the verdicts does not believe that all is well."""
    sender = sending()
    for content in CONTENTS.values():
        send_file(sender, content)
    sender.receive(encode(Verdict(0, True)))
    sender.receive_end()
    assert sender_events(sender) == [Judged(0, True, Reason.NONE, ""), PeerLeft()]


OUT_OF_TURN: list[tuple[str, list[Message]]] = [
    ("an answer", [Accept()]),
    ("a refusal", [Reject(Reason.DECLINED)]),
    ("a verdict", [Verdict(0, True)]),
    ("entries without an offer", [Entries([], [])]),
    ("an early end", [Finished()]),
    ("a file before the offer", [FileDone(0, bytes(32))]),
    ("two offers", [Offer(VERSION, 1, 0), Offer(VERSION, 1, 0)]),
    ("an empty part", [Offer(VERSION, 1, 0), Entries([], [])]),
    ("more entries than offered", [Offer(VERSION, 1, 0), Entries([], [File("a", 0, 0), File("b", 0, 0)])]),
    ("another total than offered", [Offer(VERSION, 1, 5), Entries([], [File("a", 4, 0)])]),
    ("a hostile name", [Offer(VERSION, 1, 0), Entries([], [File("../a", 0, 0)])]),
    ("twins", [Offer(VERSION, 2, 0), Entries([], [File("a", 0, 0), File("A", 0, 0)])]),
    ("an end before the choice", [Offer(VERSION, 1, 0), Entries([], [File("a", 0, 0)]), Finished()]),
    (
        "data before the choice",
        [Offer(VERSION, 1, 0), Entries([], [File("a", 0, 0)]), FileDone(0, bytes(32))],
    ),
]


@pytest.mark.parametrize(("name", "messages"), OUT_OF_TURN, ids=[name for name, _ in OUT_OF_TURN])
def test_a_message_out_of_turn_breaks_the_transfer(name: str, messages: list[Message]) -> None:
    """The receiver stops, says so once, and tells the sender."""
    receiver = Receiver()
    events = tell(receiver, *messages)
    assert isinstance(events[-1], PeerBroke)
    assert sum(isinstance(event, PeerBroke) for event in events) == 1
    assert receiver.over
    assert transmits(receiver)[0] == FrameType.ABORT


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("more than the claimed size", data(b"alpha!")),
        ("more in a second frame", data(b"alpha") + data(b"!")),
        ("less than the claimed size", data(b"alph") + encode(FileDone(0, bytes(32)))),
        ("the end of another file", encode(FileDone(1, bytes(32)))),
        ("the failure of another file", encode(FileFailed(2, ""))),
        ("an end with files missing", encode(Finished())),
        ("a file that was not offered", encode(FileDone(77, bytes(32)))),
        ("an empty data frame", frame_header(FrameType.DATA, 0)),
        ("an unknown type", frame_header(FrameType.DATA, 1).replace(b"\x05", b"\xff", 1) + b"x"),
        ("type zero", bytes(6)),
        ("a control frame in place of data", encode(Offer(VERSION, 0, 0))),
    ],
)
def test_f4_a_lie_about_a_file_breaks_the_transfer(name: str, stream: bytes) -> None:
    """Not one byte more than was offered is handed out, and not one file less passes for whole."""
    receiver = receiving()
    events = feed(receiver, stream)
    assert isinstance(events[-1], PeerBroke)
    assert sum(len(event.data) for event in events if isinstance(event, DataArrived)) <= 5
    assert not any(isinstance(event, FileEnded) for event in events)


@pytest.mark.parametrize(
    ("frame_type", "length"),
    [
        (FrameType.DATA, MAX_DATA_FRAME + 1),
        (FrameType.ENTRIES, MAX_CONTROL_FRAME + 1),
        (FrameType.OFFER, 2**32 - 1),
    ],
)
def test_an_oversized_frame_is_refused_by_its_header(frame_type: FrameType, length: int) -> None:
    """A length is judged before one byte of the payload is waited for or kept."""
    for machine in (receiving(), sending()):
        machine.receive(frame_header(frame_type, length))
        assert isinstance(machine.next_event(), PeerBroke)


@pytest.mark.parametrize(
    "message",
    [
        Accept(skip=[3]),
        Accept(compare={3: 0}),
        Accept(compare={0: 6}),
        Verdict(0, True),
        Finished(),
        Offer(VERSION, 0, 0),
        FileDone(0, bytes(32)),
    ],
)
def test_a_bad_answer_breaks_the_transfer(message: Message) -> None:
    """The sender checks the answer against its offer."""
    sender = Sender(MANIFEST)
    transmits(sender)
    sender.receive(encode(message))
    assert [type(event) for event in sender_events(sender)] == [PeerBroke]
    assert sender.over
    assert transmits(sender)[0] == FrameType.ABORT


@pytest.mark.parametrize(
    "messages",
    [
        [Verdict(1, True)],
        [Verdict(0, True), Verdict(0, True)],
        [Accept()],
        [Finished()],
        [Reject(Reason.DECLINED)],
    ],
    ids=["of a file not sent", "twice", "second answer", "end with verdicts missing", "late refusal"],
)
def test_a_bad_word_in_the_middle_breaks_the_transfer(messages: list[Message]) -> None:
    """Verdicts are for files that were sent, once each; nothing else is due while files move."""
    sender = sending()
    send_file(sender, b"alpha")
    sender.receive(b"".join(map(encode, messages)))
    assert isinstance(sender_events(sender)[-1], PeerBroke)


def test_another_version_is_refused_in_words() -> None:
    """Both sides learn that they speak different versions."""
    receiver = Receiver()
    events = tell(receiver, Offer(VERSION + 1, 0, 0))
    assert isinstance(events[0], PeerBroke) and f"version {VERSION + 1}" in events[0].sentence
    sender = Sender(MANIFEST)
    transmits(sender)
    sender.receive(transmits(receiver))
    rejected = sender.next_event()
    assert isinstance(rejected, Rejected) and rejected.reason is Reason.VERSION


def test_an_unknown_reason_of_a_later_version_is_understood_as_other() -> None:
    """A new word does not break an old program."""
    sender = Sender(MANIFEST)
    transmits(sender)
    payload = msgspec.msgpack.encode({"reason": "full-moon", "sentence": "wait"})
    sender.receive(frame_header(FrameType.REJECT, len(payload)) + payload)
    assert sender.next_event() == Rejected(Reason.OTHER, "wait")


@given(
    st.sampled_from([t for t in FrameType if t is not FrameType.DATA]), st.binary(min_size=1, max_size=200)
)
@settings(max_examples=300)
def test_no_payload_of_any_frame_raises(frame_type: FrameType, payload: bytes) -> None:
    """Whatever a control frame holds, both machines, in every state, answer with events only."""
    show_to_every_machine(frame_type, payload)


def show_to_every_machine(frame_type: FrameType, payload: bytes) -> None:
    frame = frame_header(frame_type, len(payload)) + payload
    chosen = Receiver()
    feed(chosen, offer_of(MANIFEST))
    for receiver in (Receiver(), chosen, receiving()):
        feed(receiver, frame)
    for sender in (Sender(MANIFEST), sending()):
        transmits(sender)
        sender.receive(frame)
        sender_events(sender)


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
SHAPES = VALUES | st.lists(VALUES, max_size=4) | st.lists(st.lists(VALUES, max_size=4), max_size=2)
FIELDS = [
    "version",
    "entries",
    "bytes",
    "folders",
    "files",
    "skip",
    "compare",
    "links",
    "length",
    "digests",
    "missing",
    "data",
    "index",
    "sha256",
    "ok",
    "reason",
]


@given(
    st.sampled_from([t for t in FrameType if t is not FrameType.DATA]),
    st.dictionaries(st.sampled_from(FIELDS), SHAPES, max_size=4),
)
@settings(max_examples=200)
def test_no_shape_of_any_message_raises(frame_type: FrameType, fields: dict[str, object]) -> None:
    """Well-formed msgpack of the wrong shape is refused as well as noise is."""
    show_to_every_machine(frame_type, msgspec.msgpack.encode(fields))


@given(st.binary(min_size=1, max_size=300), st.integers(0, 2000))
@settings(max_examples=300)
def test_a_corrupted_conversation_never_raises_or_overruns(noise: bytes, position: int) -> None:
    """Bytes overwritten anywhere in a real conversation lead to events, never to more than was offered."""
    stream = bytearray(whole_conversation())
    position %= len(stream)
    stream[position : position + len(noise)] = noise
    receiver = Receiver()
    receiver.receive(bytes(stream))
    allowed = arrived = 0
    while (event := receiver.next_event()) is not None:
        if isinstance(event, Offered):
            allowed = event.manifest.total
            receiver.accept()
        elif isinstance(event, DataArrived):
            arrived += len(event.data)
    assert arrived <= allowed


def test_calls_that_make_no_sense_are_the_callers_fault() -> None:
    """Misuse by the driver raises, unlike misbehaviour of the peer."""
    with pytest.raises(UsageError):
        Sender(MANIFEST).send(b"x")
    with pytest.raises(UsageError):
        sending().send(b"")
    with pytest.raises(UsageError):
        sending().send(b"alpha!")
    with pytest.raises(UsageError):
        sending().file_done(HASHES[0])
    with pytest.raises(UsageError):
        Receiver().accept()
    with pytest.raises(UsageError):
        Receiver().reject(Reason.DECLINED)
    with pytest.raises(UsageError):
        receiving().verdict(0, True)
    with pytest.raises(UsageError):
        receiving().finish()
    receiver = receiving()
    receiver.receive(b"x")
    with pytest.raises(UsageError):
        receiver.receive(b"y")


def test_after_the_end_nothing_is_said_or_heard() -> None:
    """A machine that is over ignores late bytes and late calls."""
    receiver = receiving()
    receiver.abort(Reason.LOCAL, "stop")
    transmits(receiver)
    assert feed(receiver, data(b"alpha")) == []
    receiver.verdict(0, True)
    receiver.abort(Reason.LOCAL, "again")
    receiver.receive_end()
    assert receiver.next_transmit() is None and receiver.next_event() is None


def test_a_file_of_many_frames_keeps_its_order() -> None:
    """More than one frame of data is put together as it was cut."""
    content = bytes(i % 251 for i in range(MAX_DATA_FRAME * 2 + 3))
    manifest = Manifest((), (File("big", len(content), 0o644),))
    sender, receiver = sending(manifest), receiving(manifest)
    send_file(sender, content)
    events = feed(receiver, transmits(sender))
    assert b"".join(event.data for event in events if isinstance(event, DataArrived)) == content
    assert len(events) == 6

"""Streams of unknown length: the machines of both sides, joined by function calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.errors import UsageError
from crowline.transfer.endings import PeerBroke, PeerLeft, PeerStopped
from crowline.transfer.flow import (
    HEADER_BYTES,
    MAX_CONTROL,
    MAX_DATA,
    FlowAccepted,
    FlowDamaged,
    FlowData,
    FlowEnded,
    FlowEvent,
    FlowKept,
    FlowOffered,
    FlowReceiver,
    FlowSender,
)
from crowline.transfer.messages import Reason

Side = FlowSender | FlowReceiver


def said(side: Side) -> bytes:
    parts = []
    while (part := side.next_transmit()) is not None:
        parts.append(bytes(part))
    return b"".join(parts)


def told(side: Side, data: bytes) -> list[FlowEvent]:
    """What `side` makes of `data`; bytes of views are copied, since views do not last."""
    side.receive(data)
    found: list[FlowEvent] = []
    while (event := side.next_event()) is not None:
        found.append(FlowData(memoryview(bytes(event.data))) if isinstance(event, FlowData) else event)
    return found


def frame(kind: int, fields: object) -> bytes:
    payload = fields if isinstance(fields, bytes) else msgspec.msgpack.encode(fields)
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


def flowing(name: str = "stdin") -> tuple[FlowSender, FlowReceiver]:
    """Both sides when bytes may come."""
    sender, receiver = FlowSender(name), FlowReceiver()
    assert told(receiver, said(sender)) == [FlowOffered(name)]
    receiver.accept()
    assert told(sender, said(receiver)) == [FlowAccepted()]
    return sender, receiver


@pytest.mark.parametrize("pieces", [[], [b"x"], [b"abc", b"d" * 70_000, b"e"]])
def test_bytes_arrive_in_order_and_are_confirmed(pieces: list[bytes]) -> None:
    """As many as there are, none included; the sender has succeeded only when they are kept."""
    sender, receiver = flowing()
    for piece in pieces:
        sender.send(piece)
    sender.finish()
    events = told(receiver, said(sender))
    data = b"".join(pieces)
    assert b"".join(bytes(event.data) for event in events if isinstance(event, FlowData)) == data
    assert events[-1] == FlowEnded(len(data), hashlib.sha256(data).digest())
    assert said(receiver) == b"" and not sender.over
    receiver.keep()
    assert told(sender, said(receiver)) == [FlowKept()]
    assert sender.over and receiver.over and sender.size == receiver.size == len(data)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1))
def test_the_pieces_that_bytes_come_in_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """One byte at a time, all at once, and anything between."""
    sender, receiver = flowing()
    sender.send(data)
    sender.finish()
    wire, found = said(sender), []
    while wire:
        cut = cuts[len(wire) % len(cuts)]
        found += told(receiver, wire[:cut])
        wire = wire[cut:]
    assert b"".join(bytes(event.data) for event in found if isinstance(event, FlowData)) == data
    assert isinstance(found[-1], FlowEnded)


@pytest.mark.parametrize("change", [lambda end: {**end, "size": 4}, lambda end: {**end, "sha256": bytes(32)}])
def test_what_is_not_what_was_sent_is_not_kept(change: Callable[[dict[str, object]], object]) -> None:
    """A wrong length or a wrong hash: both sides hear that it is damaged."""
    sender, receiver = flowing()
    sender.send(b"abc")
    told(receiver, said(sender))
    end = {"size": 3, "sha256": hashlib.sha256(b"abc").digest()}
    assert told(receiver, frame(4, change(end))) == [FlowDamaged()]
    (stopped,) = told(sender, said(receiver))
    assert isinstance(stopped, PeerStopped) and stopped.reason is Reason.INTEGRITY


def test_each_side_may_stop_with_a_reason() -> None:
    """The other one hears it, and nothing of what comes later."""
    sender, receiver = flowing()
    receiver.abort(Reason.LOCAL, "The disk is gone.")
    sender.send(b"in between")
    assert told(sender, said(receiver)) == [PeerStopped(Reason.LOCAL, "The disk is gone.")]
    sender.send(b"later")
    sender.finish()
    assert told(receiver, said(sender)) == []
    sender, receiver = flowing()
    sender.abort(Reason.CANCELLED, "")
    assert told(receiver, said(sender)) == [PeerStopped(Reason.CANCELLED, "")]


def test_an_end_in_the_middle_is_noticed_by_both() -> None:
    """The stream ended, the bytes did not."""
    for side in flowing():
        side.receive_end()
        assert side.next_event() == PeerLeft()
        assert side.over


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "con", "a\x00", "x" * 256, "\u202egnp", "a."])
def test_a_name_that_is_not_safe_is_refused(name: str) -> None:
    """The receiver may write a file of that name."""
    receiver = FlowReceiver()
    (event,) = told(receiver, frame(1, {"name": name}))
    assert isinstance(event, PeerBroke)
    assert receiver.over


@pytest.mark.parametrize(
    "wire",
    [
        b"\x00\x00\x00\x00\x01x",
        b"\xff\x00\x00\x00\x01x",
        frame(1, b""),
        frame(1, b"\xc1"),
        frame(1, b"\x91" * 5000),
        frame(1, {"name": 5}),
        frame(3, b"too early"),
        frame(4, {"size": 0, "sha256": hashlib.sha256().digest()}),
        frame(2, {}),
        b"\x01" + (MAX_CONTROL + 1).to_bytes(4, "big"),
        b"\x03" + (MAX_DATA + 1).to_bytes(4, "big"),
        b"\x01\xff\xff\xff\xff",
    ],
)
def test_nonsense_ends_the_receiver_with_a_sentence(wire: bytes) -> None:
    """Out of turn, too long, of no known type: said to both sides, never raised."""
    receiver = FlowReceiver()
    (event,) = told(receiver, wire)
    assert isinstance(event, PeerBroke) and event.sentence.startswith("The other side")
    (told_back,) = told(FlowSender("x"), said(receiver))
    assert isinstance(told_back, PeerStopped) and told_back.reason is Reason.PROTOCOL


@pytest.mark.parametrize(
    "wire", [frame(5, {}), frame(1, {"name": "x"}), frame(3, b"x"), frame(2, {}) + frame(2, {})]
)
def test_nonsense_ends_the_sender_with_a_sentence(wire: bytes) -> None:
    """Bytes from the side that only takes them, and confirmations of nothing."""
    events = told(FlowSender("x"), wire)
    assert isinstance(events[-1], PeerBroke)


def test_a_second_offer_is_out_of_turn() -> None:
    """A name is chosen once."""
    sender, receiver = flowing()
    del sender
    (event,) = told(receiver, frame(1, {"name": "other"}))
    assert isinstance(event, PeerBroke)


def test_a_control_message_in_slow_motion_holds_no_more_than_its_limit() -> None:
    """Its length is checked before any of it is kept, and views of what came are let go."""
    receiver = FlowReceiver()
    wire = bytes((1,)) + MAX_CONTROL.to_bytes(4, "big")
    assert told(receiver, wire) == []
    for _ in range(MAX_CONTROL - 1):
        assert told(receiver, b"\x00") == []
    assert len(receiver._head) == HEADER_BYTES + MAX_CONTROL - 1
    assert isinstance(told(receiver, b"\x00")[0], PeerBroke)


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Whatever comes, both machines go on or end."""
    for side in (FlowReceiver(), FlowSender("x"), *flowing()):
        for piece in pieces:
            told(side, piece)
        assert side.over or said(side) is not None


def test_misuse_by_the_caller_is_said() -> None:
    """Sending before anybody takes it, accepting nothing, keeping what has not come."""
    sender, receiver = FlowSender("x"), FlowReceiver()
    for call in (lambda: sender.send(b"x"), sender.finish, receiver.accept, receiver.keep):
        with pytest.raises(UsageError):
            call()

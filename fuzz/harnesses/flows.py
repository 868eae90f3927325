"""Streams of unknown length: what either side makes of the other's bytes."""

from __future__ import annotations

import hashlib

import msgspec

from crowline.transfer.flow import (
    FlowAccepted,
    FlowData,
    FlowEnded,
    FlowOffered,
    FlowReceiver,
    FlowSender,
)
from crowline.transfer.names import check_component
from fuzz.harness import Harness


def _frame(kind: int, payload: bytes) -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(4, "big") + payload


def _message(kind: int, **fields: object) -> bytes:
    return _frame(kind, msgspec.msgpack.encode(fields))


_OFFER = _message(1, name="stdin")
_DATA = _frame(3, b"some bytes")
_END = _message(4, size=10, sha256=hashlib.sha256(b"some bytes").digest())
_STOP = _message(6, reason="local", sentence="The disk is full.")


def run_receiver(data: bytes) -> None:
    """Whole and in two parts it means the same; what is confirmed is what came, under a safe name."""
    cut = len(data) // 2
    assert _received([data]) == _received([data[:cut], data[cut:]])


def run_sender(data: bytes) -> None:
    """Nothing that a receiver says makes it confirm what it has not had."""
    sender = FlowSender("stdin")
    sender.receive(data)
    while (event := sender.next_event()) is not None:
        if isinstance(event, FlowAccepted):
            sender.send(b"some bytes")
            sender.finish()
    while sender.next_transmit() is not None:
        pass


def _received(parts: list[bytes]) -> tuple[bytes, list[str]]:
    receiver, stream, found = FlowReceiver(), bytearray(), list[str]()
    for part in parts:
        receiver.receive(part)
        while (event := receiver.next_event()) is not None:
            if isinstance(event, FlowData):
                stream += event.data
                continue
            found.append(repr(event))
            if isinstance(event, FlowOffered):
                check_component(event.name)
                receiver.accept()
            elif isinstance(event, FlowEnded):
                assert event.sha256 == hashlib.sha256(stream).digest() and event.size == len(stream)
                receiver.keep()
    while receiver.next_transmit() is not None:
        pass
    return bytes(stream), found


HARNESSES = (
    Harness(
        "flow-receiver",
        run_receiver,
        "crowline/transfer/flow",
        (_OFFER + _DATA + _END, _OFFER + _STOP, _OFFER),
        (),
        (_OFFER, _DATA, _END, _STOP, b"name", b"sha256"),
    ),
    Harness(
        "flow-sender",
        run_sender,
        "crowline/transfer/flow",
        (_message(2) + _message(5), _message(2) + _STOP),
        (),
        (_message(2), _message(5), _STOP, b"reason", b"sentence"),
    ),
)

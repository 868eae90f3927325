"""What one doctor tells the other."""

from __future__ import annotations

import msgspec

from crowline.diagnosis.pair_messages import (
    HEADER,
    MAX_PAYLOAD,
    Arrived,
    Kind,
    MalformedFrame,
    Settled,
    SideFacts,
    SideResult,
    frame,
    message,
    parse,
    parse_header,
)
from crowline.punch.obstacle import obstacle
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from fuzz.harness import Harness

_TYPES: dict[Kind, type[msgspec.Struct]] = {
    Kind.SIDE: SideFacts,
    Kind.SETTLED: Settled,
    Kind.ARRIVED: Arrived,
    Kind.RESULT: SideResult,
}
_HARD = NatSummary(MappingKind.PER_PORT, FilterKind.PER_PORT, PortChoice.RANDOM)


def run_frames(data: bytes) -> None:
    """Frames one after the other; what is read can be written again, and is the same."""
    while len(data) >= HEADER.size:
        kind, length = parse_header(data[: HEADER.size])
        assert length <= MAX_PAYLOAD
        payload, data = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
        type_ = _TYPES.get(kind)
        if type_ is None or len(payload) < length:
            continue
        body = parse(payload, type_)
        assert parse(msgspec.json.encode(body), type_) == body
        if isinstance(body, SideFacts):
            assert obstacle(body.summary, _HARD)
        elif isinstance(body, Arrived):
            assert body.rate is None or body.rate >= 0


HARNESSES = (
    Harness(
        name="doctor-frames",
        run=run_frames,
        module="crowline/diagnosis/pair_messages",
        seeds=(
            message(Kind.SIDE, SideFacts.of(_HARD, nat="symmetric", routers=("upnp", "pcp"), firewall="ufw")),
            message(Kind.SETTLED, Settled(True)) + frame(Kind.BULK, bytes(20)) + frame(Kind.TRAIN_ENDED, b""),
            message(Kind.ARRIVED, Arrived(8192, 0.25)) + message(Kind.RESULT, SideResult(12, 7)),
        ),
        allowed=(MalformedFrame,),
        tokens=(b'"', b"null", b"1e999", b"-0", b"[" * 50, b'"\\ud800"', b"9" * 400, b"RANDOM", b"PER_PORT"),
    ),
)

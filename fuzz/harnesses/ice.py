"""What comes to ICE on a stream: packets behind their length."""

from __future__ import annotations

from crowline.ice.framing import FIRST_LIMIT, Deframer, MalformedFraming, frame
from fuzz.harness import Harness
from fuzz.harnesses.stun import vectors

_SEEDS = (*(frame(vector) for vector in vectors()[:2]), frame(b"a") + b"\0\0" + frame(b"b") * 3)


def run_framing(data: bytes) -> None:
    """Packets are the same however the stream is cut, none is empty, and they make up the stream."""
    at_once, lost = _packets([data])
    assert (at_once, lost) == _packets([data[at : at + 1] for at in range(len(data))])
    for number, packet in enumerate(at_once):
        assert packet
        assert number or len(packet) <= FIRST_LIMIT
    assert sum(map(len, map(frame, at_once))) <= len(data)
    assert not at_once or data.startswith(frame(at_once[0]))


def _packets(parts: list[bytes]) -> tuple[list[bytes], bool]:
    """What is found, and whether the stream was lost on the way."""
    deframer, found = Deframer(FIRST_LIMIT), list[bytes]()
    try:
        for part in parts:
            deframer.feed(part)
            while (packet := deframer.next_packet()) is not None:
                found.append(packet)
    except MalformedFraming:
        return found, True
    return found, False


HARNESSES = (Harness("ice-framing", run_framing, "crowline/ice/framing", _SEEDS, (), (b"\0\0", b"\x05\xdd")),)

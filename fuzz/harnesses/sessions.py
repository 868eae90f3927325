"""Session frames, the session above them, and the test for the beginning of a QUIC link."""

from __future__ import annotations

from crowline.link.quic import DATAGRAM_SIZE, is_initial
from crowline.session.frames import CREDIT, FrameParser, Kind, MalformedFrame, close_frame, header
from crowline.session.session import Session
from fuzz.harness import Harness

_SEEDS = (
    header(Kind.DATA, 1, 0, 4) + b"data",
    header(Kind.FIN, 1, 4, 3) + b"end" + header(Kind.FIN, 2, 0),
    header(Kind.WINDOW, 1, 4, 8) + CREDIT.pack(1000),
    header(Kind.RESET, 1, 7) + header(Kind.RESET_ACK, 1, 0),
    header(Kind.PING, 0, 99) + header(Kind.PONG, 0, 99),
    close_frame(6, b"No path."),
)
_TOKENS = (*(bytes((kind, 0, 0, 0)) for kind in Kind), b"\xff" * 8, b"\0" * 8, CREDIT.pack(1))


class _Carrier:
    """A link that takes everything."""

    unanswered_since: float | None = None

    def room(self) -> int:
        return 1 << 20

    def send(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Nobody listens."""


def run_frames(data: bytes) -> None:
    """Frames are the same however the bytes are cut, but for where stream bytes are."""
    assert _parsed([data]) == _parsed([data[at : at + 1] for at in range(len(data))])


def run_session(data: bytes) -> None:
    """A session survives what the other side says; what it does with it stays bounded."""
    for initiator in (True, False):
        session = Session(initiator=initiator)
        session.attach(1, _Carrier(), 1, 0.0)
        session.write(session.open_stream(), b"something")
        for step, start in enumerate(range(0, len(data), 97)):
            session.receive(data[start : start + 97], 1, float(step))
            _drain(session)
        session.handle_timeout(1000.0)
        _drain(session)


def run_initial(data: bytes) -> None:
    """Short datagrams begin nothing, whatever is in them."""
    if is_initial(data):
        assert len(data) >= DATAGRAM_SIZE


def _drain(session: Session) -> None:
    for _ in range(10_000):
        if session.next_transmit() is None and session.next_event() is None:
            return
    raise AssertionError("the session has no end of things to say")


def _parsed(parts: list[bytes]) -> list[tuple[object, ...]]:
    """Frames with neighbouring stream bytes put together, and how it ended."""
    frames: list[tuple[object, ...]] = []
    stream_bytes: dict[int, bytes] = {}

    def take(kind: Kind, stream: int, offset: int, payload: memoryview) -> None:
        if kind in (Kind.DATA, Kind.FIN):
            stream_bytes[stream] = stream_bytes.get(stream, b"") + bytes(payload)
        if kind is not Kind.DATA:
            frames.append((kind, stream, offset + len(payload), b"" if kind is Kind.FIN else bytes(payload)))

    parser = FrameParser(take)
    try:
        for part in parts:
            parser.feed(part)
    except MalformedFrame as error:
        frames.append((error.message,))
    return [*frames, tuple(sorted(stream_bytes.items()))]


HARNESSES = (
    Harness("session-frames", run_frames, "crowline/session/frames", _SEEDS, (), _TOKENS),
    Harness("session", run_session, "crowline/session/", (b"".join(_SEEDS), *_SEEDS), (), _TOKENS),
    Harness(
        "quic-initial",
        run_initial,
        "crowline/link/quic",
        (b"\xc0\0\0\0\1\x08" + bytes(1194), b"\xc0\0\0\0\1"),
    ),
)

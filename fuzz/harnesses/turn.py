"""What comes to TURN beside STUN: ChannelData alone, in runs and on streams."""

from __future__ import annotations

from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.message import HEADER_SIZE, MalformedStun, Message, MessageClass, Method
from crowline.turn import channel_data
from crowline.turn.client import TurnClient
from crowline.turn.framing import StreamFramer, pad
from fuzz.harness import Harness
from fuzz.harnesses.stun import CLIENT, IDENTIFIER, SERVER, vectors

_SEEDS = (
    channel_data.wrap(0x4000, b""),
    channel_data.wrap(0x4FFF, b"data"),
    channel_data.wrap_run(0x4001, b"x" * 25, 10),
    b"\x50\0\0\4data",
    b"\x40\0\xff\xffdata",
)
_MAX_STUN = 1024
_BOUNDARY = b"--"


def run_channel_data(data: bytes) -> None:
    """A message is cut from its front; nothing of it is invented, and its number is one of a channel."""
    found = channel_data.unwrap(data)
    if found is None:
        return
    number, payload = found
    assert channel_data.FIRST_CHANNEL <= number <= channel_data.LAST_CHANNEL
    assert channel_data.is_channel_data(data)
    assert data.startswith(channel_data.wrap(number, payload))


def run_channel_run(data: bytes) -> None:
    """A run gives what its datagrams give one by one."""
    size = 1 + data[0] if data else 1
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    alone = [(n, bytes(p)) for n, p in map(_unwrap, pieces) if p is not None]
    together = [
        (number, bytes(part)) for number, parts in channel_data.unwrap_run(data, size) for part in parts
    ]
    assert together == alone
    starts_alike = bool(data) and all(0x40 <= piece[0] <= 0x4F for piece in pieces)
    assert channel_data.is_channel_run(memoryview(data), size) == (starts_alike and len(data) >= 4)


def run_framer(data: bytes) -> None:
    """Messages are the same however the stream is cut; what waits is less than one of them."""
    at_once, whole = _frames([data])
    by_byte, _ = _frames([data[at : at + 1] for at in range(len(data))])
    assert at_once == by_byte
    assert whole <= max(_MAX_STUN, channel_data.HEADER_SIZE + 0xFFFF + 3)
    for message in at_once:
        assert message
        if message[0] < 0x40:
            assert HEADER_SIZE <= len(message) <= _MAX_STUN
        else:
            assert channel_data.unwrap(message) is not None
            assert len(pad(message)) % 4 == 0


def run_client(data: bytes) -> None:
    """Answers to its own questions, true or not: it talks to its server alone, and comes to an end."""
    client = TurnClient(SERVER, "user", Secret(b"password"), entropy=_Dice())
    client.create_permission([CLIENT], 0.0)
    client.allocate(0.0)
    for step, answer in enumerate(data.split(_BOUNDARY)[:20]):
        while (transmit := client.next_transmit()) is not None:
            assert transmit.destination == SERVER
            identifier = bytes(transmit.data[8:HEADER_SIZE])
            client.receive(answer[:8] + identifier + answer[HEADER_SIZE:], SERVER, float(step))
        client.receive(answer, SERVER, float(step))
        while client.next_event() is not None:
            pass
    client.close(100.0)
    for _ in range(100):
        if (at := client.next_timeout()) is None:
            break
        client.handle_timeout(at)
        while client.next_transmit() is not None:
            pass
    assert client.is_closed


class _Dice:
    """Identifiers that differ, the same in each run."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(size, "big")


def _answer(kind: MessageClass, *attributes: a.AnyAttribute) -> bytes:
    return Message(Method.ALLOCATE, kind, IDENTIFIER, attributes).encode()


_CHALLENGE = _answer(MessageClass.ERROR, a.ErrorCode(401), a.Realm("realm"), a.Nonce("nonce"))
_STALE = _answer(MessageClass.ERROR, a.ErrorCode(438), a.Realm("realm"), a.Nonce("another"))
_ELSEWHERE = _answer(MessageClass.ERROR, a.ErrorCode(300), a.AlternateServer(CLIENT))
_SUCCESS = _answer(
    MessageClass.SUCCESS, a.XorRelayedAddress(CLIENT), a.XorMappedAddress(CLIENT), a.Lifetime(600)
)


def _unwrap(piece: bytes) -> tuple[int, memoryview | None]:
    return channel_data.unwrap(piece) or (0, None)


def _frames(parts: list[bytes]) -> tuple[list[bytes], int]:
    """The messages until the end or the first bytes that are none, and what waits then."""
    framer, found = StreamFramer(_MAX_STUN), list[bytes]()
    try:
        for part in parts:
            framer.feed(part)
            while (message := framer.next_message()) is not None:
                found.append(message)
    except MalformedStun:
        return found, 0
    return found, len(framer)


HARNESSES = (
    Harness(
        name="turn-client",
        run=run_client,
        module="crowline/turn/",
        seeds=(
            _BOUNDARY.join((_CHALLENGE, _STALE, _SUCCESS)),
            _BOUNDARY.join((_CHALLENGE, _CHALLENGE)),
            _BOUNDARY.join((_ELSEWHERE, _SEEDS[1])),
        ),
        tokens=(_BOUNDARY, _CHALLENGE, _STALE, _SUCCESS, b"\0\x0d\0\4", b"\0\x15\0\5"),
    ),
    Harness("turn-channel-data", run_channel_data, "crowline/turn/channel_data", _SEEDS),
    Harness("turn-channel-run", run_channel_run, "crowline/turn/channel_data", _SEEDS),
    Harness(
        name="turn-stream",
        run=run_framer,
        module="crowline/turn/framing",
        seeds=(*_SEEDS, *vectors()[:3], pad(_SEEDS[1]) * 3 + vectors()[0]),
        tokens=(b"\x40\0\0\1x\0\0\0", b"\0\1\0\0\x21\x12\xa4\x42"),
    ),
)

"""Link zero: sealed frames through the hub, and what is left of its budget."""

from __future__ import annotations

import os

from crowline.base.secrets import Secret
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.link.hub import MAX_FRAME, RESERVE, HubLink
from crowline.rendezvous.seal import OVERHEAD, Opener, Sealer

ONE, OTHER = Secret(b"1" * 32), Secret(b"2" * 32)
BUDGET = 1 << 20


def pair(credit: int = BUDGET) -> tuple[HubLink, HubLink]:
    return HubLink(Sealer(ONE), Opener(OTHER), credit), HubLink(Sealer(OTHER), Opener(ONE), credit)


def carry(source: HubLink, target: HubLink) -> list[bytes]:
    frames = []
    while (frame := source.next_transmit()) is not None:
        frames.append(frame)
        target.receive(frame, None, 0.0)
    source.queued = 0
    return frames


def events(link: HubLink) -> list[LinkEvent]:
    found = []
    while (event := link.next_event()) is not None:
        found.append(event)
    return found


def test_bytes_arrive_in_order_and_unreadable_to_the_hub() -> None:
    """A long write becomes frames of bounded size, sealed, and comes out as it went in."""
    one, other = pair()
    data = os.urandom(3 * MAX_FRAME + 5)
    one.send(data, 0.0)
    frames = carry(one, other)
    assert max(map(len, frames)) == MAX_FRAME + OVERHEAD
    assert not any(data[i : i + 16] in b"".join(frames) for i in range(0, len(data) - 16, 1000))
    got = events(other)
    assert got[0] == LinkUp()
    assert b"".join(bytes(e.data) for e in got if isinstance(e, LinkData)) == data


def test_bulk_stops_short_of_the_budget_and_last_words_still_fit() -> None:
    """`room` is what the credit leaves for stream bytes."""
    one, other = pair()
    one.grant(BUDGET, final=True)
    while one.room() > 0:
        one.send(bytes(min(one.room(), MAX_FRAME)), 0.0)
        carry(one, other)
    assert one.is_exhausted and not other.is_exhausted
    one.send(b"goodbye", 0.0)
    carry(one, other)
    assert events(other)[-1] == LinkData(b"goodbye")
    assert not any(isinstance(e, LinkDown) for e in events(one))


def test_what_the_budget_does_not_hold_ends_the_link() -> None:
    """The session then takes everything unacknowledged elsewhere."""
    one, _ = pair(credit=RESERVE)
    one.grant(RESERVE, final=True)
    one.send(bytes(RESERVE + 1), 0.0)
    assert isinstance(events(one)[-1], LinkDown)
    assert one.room() == 0


def test_what_the_credit_does_not_hold_yet_waits_for_the_hub() -> None:
    """Frames keep their order, bulk waits behind them, and nothing is lost."""
    one, other = pair(credit=RESERVE)
    data = os.urandom(RESERVE + 1)
    one.send(data, 0.0)
    sent = carry(one, other)
    assert sum(map(len, sent)) <= RESERVE and one.room() == 0 and not one.is_exhausted
    one.grant(3 * RESERVE, final=False)
    carry(one, other)
    assert b"".join(bytes(e.data) for e in events(other) if isinstance(e, LinkData)) == data
    assert 0 < one.room() < RESERVE and not any(isinstance(e, LinkDown) for e in events(one))


def test_a_full_websocket_leaves_no_room() -> None:
    """Bulk waits for the kernel, not in memory."""
    one, _ = pair(credit=1 << 30)
    one.queued = 1 << 20
    assert one.room() == 0


def test_an_altered_lost_or_repeated_frame_ends_the_link() -> None:
    """The hub can only deny."""
    for tamper in (
        lambda f: [f[0][:-1] + bytes([f[0][-1] ^ 1]), f[1]],
        lambda f: [f[1]],
        lambda f: [f[0], f[0]],
        lambda f: [f[1], f[0]],
        lambda f: [b""],
    ):
        one, other = pair()
        one.send(b"first", 0.0)
        one.send(b"second", 0.0)
        frames = [one.next_transmit() or b"", one.next_transmit() or b""]
        for frame in tamper(frames):
            other.receive(frame, None, 0.0)
        got = events(other)
        assert isinstance(got[-1], LinkDown)
        assert LinkData(b"second") not in got or got.index(LinkData(b"second")) == 2

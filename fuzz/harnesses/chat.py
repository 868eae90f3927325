"""A chat, and the card of somebody who wants to be known."""

from __future__ import annotations

import msgspec

from crowline.api.pairing.identity import Card, read_card
from crowline.base.errors import ProtocolViolation
from crowline.chat.events import Arrived, Broken, PeerLeft
from crowline.chat.messages import MAX_FRAME, Away, Marks, Message, Say, Typing, encode
from crowline.chat.talk import Talk
from fuzz.harness import Harness

_MESSAGES: tuple[Message, ...] = (
    Say(1, "hello"),
    Say(2, "zwei ü\nlines"),
    Marks(1, 1),
    Typing(True),
    Away(True, "lunch"),
)
_CARD = msgspec.json.encode(Card(bytes(range(32)), bytes(64), "ana")) + b"\n"


def run_talk(data: bytes) -> None:
    """The first byte says in what pieces the rest comes. Messages have the numbers 1, 2, 3 …; one end."""
    talk = Talk()
    talk.say("kept")
    talk.next_transmit(0.0)
    step = (data[0] if data else 0) + 1
    for start in range(1, len(data), step):
        talk.receive(data[start : start + step], start / 100)
    talk.receive(b"", 1000.0)
    numbers = []
    ended = False
    while (event := talk.next_event()) is not None:
        assert not ended
        ended = isinstance(event, Broken | PeerLeft)
        numbers += [event.number] if isinstance(event, Arrived) else []
    assert ended and numbers == list(range(1, len(numbers) + 1))
    assert len(talk._reader._buffer) < MAX_FRAME + 4 + step


def run_card(line: bytes) -> None:
    card = read_card(line)
    assert len(card.key) == 32 and len(card.proof) == 64


HARNESSES = (
    Harness(
        name="chat-talk",
        run=run_talk,
        module="crowline/chat/",
        seeds=(
            b"\xff" + b"".join(map(encode, _MESSAGES)),
            b"\x02" + b"".join(map(encode, _MESSAGES)),
            *(b"\xff" + encode(message) for message in _MESSAGES),
        ),
        tokens=(b"\xa1t", b"\xa3say", b"\xa5marks", b"\xa6typing", b"\xa4away", b"\x00\x00\x00"),
    ),
    Harness(
        name="pairing-card",
        run=run_card,
        module="crowline/api/pairing/identity",
        seeds=(_CARD, _CARD.replace(b"ana", b"")),
        allowed=(ProtocolViolation,),
        tokens=(b'"key":"', b'"proof":"', b'"name":"', b"AAAA"),
    ),
)

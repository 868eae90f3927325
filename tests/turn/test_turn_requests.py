"""What a client does with answers that are not signed as they should be (RFC 8489 §9.2.5)."""

from __future__ import annotations

import pytest

from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.password_algorithms import OFFERED, Algorithm, derive_key
from crowline.stun.transaction import RELIABLE, UDP, Schedule
from crowline.turn.codes import REQUEST_TIMEOUT
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.requests import INTEGRITY_VIOLATED, Request, Requests
from turn_pair import SERVER, entropy

KEY = derive_key(Algorithm.SHA256, "user", "realm", "password")
BOTH = pytest.mark.parametrize("schedule", [UDP, RELIABLE], ids=["udp", "stream"])


def signed(schedule: Schedule) -> tuple[Requests, Message]:
    """Requests with one signed request under way."""
    sent: list[Transmit] = []
    requests = Requests(
        SERVER,
        LongTermCredentials("user", Secret(b"password")),
        entropy=entropy(3),
        schedule=schedule,
        transmit=sent.append,
    )
    requests.send(Request(Method.REFRESH, ()), 0.0)
    first = parse(sent[0].data).message
    challenge = (a.ErrorCode(401), a.Realm("realm"), a.Nonce("obMatJos2gAABx"), OFFERED)
    requests.receive(parse(first.answer(MessageClass.ERROR, *challenge).encode()), 0.0)
    return requests, parse(sent[1].data).message


def test_over_udp_a_forged_answer_is_outlived() -> None:
    """A success with another key does nothing, and the true one that follows counts."""
    requests, request = signed(UDP)
    success = request.answer(MessageClass.SUCCESS, a.Lifetime(600))
    assert requests.receive(parse(success.encode(key=b"another", sha256=True)), 0.1) is None
    outcome = requests.receive(parse(success.encode(key=KEY, sha256=True)), 0.2)
    assert outcome is not None
    assert outcome.message is not None


def test_over_a_stream_a_forged_answer_ends_the_request() -> None:
    """Nothing better comes over a stream: the request fails at once, and says why."""
    requests, request = signed(RELIABLE)
    success = request.answer(MessageClass.SUCCESS, a.Lifetime(600))
    outcome = requests.receive(parse(success.encode(key=b"another", sha256=True)), 0.1)
    assert outcome is not None
    assert (outcome.message, outcome.code, outcome.reason) == (None, REQUEST_TIMEOUT, INTEGRITY_VIOLATED)
    assert len(requests) == 0


@BOTH
def test_a_bare_400_never_ends_a_request(schedule: Schedule) -> None:
    """Anybody can write an unsigned 400: it is dropped, and the request runs on to its end."""
    requests, request = signed(schedule)
    error = request.answer(MessageClass.ERROR, a.ErrorCode(400))
    assert requests.receive(parse(error.encode()), 0.1) is None
    [outcome] = requests.handle_timeout(39.5)
    assert outcome.reason == "the server does not answer"


def test_a_timeout_tells_silence_from_forgery() -> None:
    """A request that only forged answers came to does not claim that the server was silent."""
    requests, request = signed(UDP)
    assert requests.receive(parse(request.answer(MessageClass.SUCCESS).encode()), 0.1) is None
    [outcome] = requests.handle_timeout(39.5)
    assert (outcome.code, outcome.reason) == (REQUEST_TIMEOUT, INTEGRITY_VIOLATED)

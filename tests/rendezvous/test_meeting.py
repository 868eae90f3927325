"""Two meetings and a hub in virtual time: who gets what, when, and what goes wrong."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, NobodyCame, ServerUnreachable, UsageError, WrongCode
from crowline.rendezvous import wire
from crowline.rendezvous.code import Code
from crowline.rendezvous.events import (
    BudgetGranted,
    CodeReady,
    Keyed,
    MeetingFailed,
    PeerLeft,
    PeerPresent,
    PeerReturned,
    Signalled,
    Welcomed,
)
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.meeting import ANSWER_LIMIT, HUB, MAX_MOTD, PROOF_LIMIT, Meeting
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import (
    Bye,
    CandidateSignal,
    Description,
    EndOfCandidates,
    Hello,
    MalformedSignal,
    decode,
    encode,
)
from rendezvous_room import Room

DESCRIPTION = Description("ufrag", "p" * 22, "ab" * 32)
CANDIDATE = CandidateSignal("1", 1, "udp", 1, "198.51.100.1", 4000, "host")


def test_a_pair_agrees_on_key_and_verifier() -> None:
    """Both sides get the same key and the same four words."""
    host, join = Room().pair()
    [mine], [theirs] = host.of(Keyed), join.of(Keyed)
    assert mine.key.reveal() == theirs.key.reveal()
    assert mine.verifier == theirs.verifier
    assert len(mine.verifier) == 4


def test_a_pair_agrees_with_the_real_key_exchange() -> None:
    """SPAKE2 in the place of the simulated exchange."""
    host, join = Room(pake=Spake2Pake).pair()
    assert host.of(Keyed)[0].key.reveal() == join.of(Keyed)[0].key.reveal()


def test_events_come_in_the_documented_order() -> None:
    """The host is welcomed, gets its code, sees the other side, has the key."""
    host, join = Room().pair()
    assert [type(event) for _, event in host.events] == [Welcomed, CodeReady, PeerPresent, Keyed]
    assert [type(event) for _, event in join.events] == [Welcomed, PeerPresent, Keyed]


def test_the_code_takes_one_round_trip() -> None:
    """The host's number is the answer to its first message."""
    room = Room(delay=0.01)
    started = room.now
    host = room.host()
    room.run(1)
    assert host.at(CodeReady) - started == pytest.approx(0.02)


def test_the_key_is_proven_one_message_each_way_after_both_are_there() -> None:
    """With 10 ms to the hub, 20 ms pass between the news that both are there and the proven key."""
    room = Room(delay=0.01)
    host = room.host()
    room.run(1)
    started = room.now
    join = room.join(room.code_of(host))
    room.run(1)
    for side in (host, join):
        assert side.at(PeerPresent) - started == pytest.approx(0.02)
        assert side.at(Keyed) - started == pytest.approx(0.04)


def test_early_signals_travel_with_the_proof() -> None:
    """What was to be said before there was a key arrives in the moment of the key, in order."""
    room = Room()
    host = room.host()
    room.run(1)
    for signal in (DESCRIPTION, CANDIDATE):
        host.signal(signal)
    join = room.join(room.code_of(host))
    join.signal(Hello("Ana's laptop"))
    room.run(1)
    assert join.signals == [DESCRIPTION, CANDIDATE]
    assert host.signals == [Hello("Ana's laptop")]
    assert join.at(Signalled) == join.at(Keyed)


def test_signals_go_both_ways_in_order() -> None:
    """Every kind of signal arrives as it was sent."""
    host, join = (room := Room()).pair()
    said = [DESCRIPTION, CANDIDATE, EndOfCandidates(), Hello(""), Bye(5, "The disk is full.")]
    for signal in said:
        host.signal(signal)
        join.signal(signal)
    room.run(1)
    assert host.signals == join.signals == said


def test_a_wrong_guess_burns_the_code_on_both_sides() -> None:
    """The wrong words cost one try: both are told, and the right words come too late."""
    room = Room()
    host = room.host()
    room.run(1)
    code = room.code_of(host)
    wrong = room.join(Code.from_secret(code.number, code.secret ^ 1))
    room.run(1)
    right = room.join(code)
    room.run(1)
    for client in (host, wrong, right):
        assert isinstance(client.error, WrongCode)
        assert not client.is_keyed


def test_somebody_who_takes_the_code_and_leaves_burns_it() -> None:
    """The host's proof is one guess's worth: whoever saw it and left without an own one gets no second."""
    room = Room()
    host = room.host()
    room.run(1)
    guess = room.join(room.code_of(host))
    room.tamper = lambda client, data: [] if client is guess else [data]
    guess.close()
    room.run(1)
    assert isinstance(host.error, WrongCode)


def test_an_unknown_code_is_a_wrong_code() -> None:
    """No mailbox of that number: exit 4, and a hint."""
    room = Room()
    join = room.join(Code.from_secret(7, 1))
    room.run(1)
    assert isinstance(join.error, WrongCode)
    assert join.error.hint


def test_an_unclaimed_code_expires_after_an_hour() -> None:
    """The host learns that nobody came; the number is of no use any more."""
    room = Room()
    host = room.host()
    room.run(1)
    code = room.code_of(host)
    room.run(3601)
    assert isinstance(host.error, NobodyCame)
    late = room.join(code)
    room.run(1)
    assert isinstance(late.error, WrongCode)


def test_a_long_meeting_stays_alive_without_signals() -> None:
    """Pings keep the mailbox for a day of silence."""
    host, join = (room := Room()).pair()
    room.run(86_400)
    host.signal(Hello("still there"))
    room.run(1)
    assert join.signals == [Hello("still there")]


def test_a_silent_hub_is_noticed() -> None:
    """Without an answer to the first message the server counts as unreachable."""
    room = Room()
    room.tamper = lambda client, data: []
    host = room.host()
    room.run(ANSWER_LIMIT + 1)
    assert isinstance(host.error, ServerUnreachable)


def test_a_silent_peer_is_noticed() -> None:
    """Somebody who claims the code and proves nothing is given up, and the code is burned."""
    room = Room()
    host = room.host()
    room.run(1)
    silent = room.join(room.code_of(host))
    room.tamper = lambda client, data: [] if client is silent else [data]
    room.run(PROOF_LIMIT + 1)
    assert isinstance(host.error, NobodyCame)
    assert len(room.hub) == 0


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_named(version: int) -> None:
    """A server of another version is told apart from a broken one, in words."""
    meeting = opened_host()
    meeting.receive(wire.encode(wire.Welcome(v=version)), HUB, 0)
    error = error_of(meeting)
    assert isinstance(error, ServerUnreachable)
    assert "version" in error.message


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"{}", b"[" * 60_000, b'{"t":"welcome"}', b"\xff" * 8, b'{"t":"pong"}', b"x" * 70_000],
)
def test_what_is_no_hub_is_named(data: bytes) -> None:
    """A first message that no hub sends ends the meeting with a sentence."""
    meeting = opened_host()
    meeting.receive(data, HUB, 0)
    assert isinstance(error_of(meeting), ServerUnreachable)


def test_garbage_after_the_welcome_is_counted() -> None:
    """A hub that goes mad later is ignored, message by message."""
    meeting = opened_host()
    meeting.receive(wire.encode(wire.Welcome(v=wire.VERSION)), HUB, 0)
    meeting.next_event()
    for data in (b"garbage", b"[" * 60_000, b'{"t":"unheard-of"}'):
        meeting.receive(data, HUB, 0)
    assert meeting.counters["malformed"] == 3
    assert meeting.next_event() is None


@pytest.mark.parametrize("code", ["version", "malformed", "no-such-code", "slow-down", "full", "lost"])
def test_each_refusal_is_a_sentence_with_a_hint(code: str) -> None:
    """No refusal of the hub reaches the person as a code word."""
    meeting = opened_host()
    meeting.receive(b'{"t":"error","code":"%s","retry":9}' % code.encode(), HUB, 0)
    error = error_of(meeting)
    assert error.message.endswith(".")
    assert error.hint.endswith(".")


def test_the_other_side_leaving_is_told() -> None:
    """After the key, a farewell of the other side is an event and no failure."""
    host, join = (room := Room()).pair()
    join.close()
    room.run(1)
    assert host.of(PeerLeft) == [PeerLeft(final=True)]
    assert not host.of(MeetingFailed)


def test_a_broken_websocket_loses_nothing() -> None:
    """A side that comes back within the grace time gets what it missed, and what it sent arrives once."""
    host, join = (room := Room()).pair()
    host.signal(Hello("1"))
    join.signal(Hello("a"))
    join.lose_socket()
    host.signal(Hello("2"))
    join.signal(Hello("b"))
    room.run(5)
    join.come_back()
    join.signal(Hello("c"))
    host.signal(Hello("3"))
    room.run(1)
    assert join.signals == [Hello("1"), Hello("2"), Hello("3")]
    assert host.signals == [Hello("a"), Hello("b"), Hello("c")]
    assert host.of(PeerLeft) == [PeerLeft(final=False)]
    assert host.of(PeerReturned) == [PeerReturned()]


def test_a_host_may_come_back_to_a_visitor() -> None:
    """The other side came while the host's WebSocket was broken: the meeting begins when it is back."""
    room = Room()
    host = room.host()
    room.run(1)
    host.lose_socket()
    join = room.join(room.code_of(host))
    room.run(5)
    host.come_back()
    room.run(1)
    assert host.is_keyed and join.is_keyed


def test_coming_back_too_late_is_a_failure() -> None:
    """After the grace time the other side is told for good, and the way back is closed."""
    host, join = (room := Room()).pair()
    join.lose_socket()
    room.run(room.hub.limits.grace + 1)
    assert host.of(PeerLeft) == [PeerLeft(final=False), PeerLeft(final=True)]
    join.come_back()
    room.run(1)
    assert isinstance(join.error, ServerUnreachable)


def test_link_zero_carries_frames_within_its_budget() -> None:
    """Each side may send its half; frames beyond it are dropped, and both hear once that no more comes."""
    host, join = (room := Room(limits=HubLimits(budget=1000))).pair()
    for _ in range(6):
        host.frame(b"h" * 100)
        join.frame(b"j" * 100)
    room.run(1)
    assert len(host.frames) == len(join.frames) == 5
    assert host.of(BudgetGranted) == join.of(BudgetGranted) == [BudgetGranted(500, final=True)]


def test_turn_credentials_come_once_both_are_there() -> None:
    """Each side gets its own, good for the addresses seen and as long as the meeting lasts."""
    users: list[str] = []

    def grant(user: str) -> wire.TurnGrant:
        users.append(user)
        return wire.TurnGrant((wire.ServerAddress("", 3478),), f"1:{user}", "secret", 60)

    room = Room(grant=grant)
    host = room.host("198.51.100.1")
    room.run(1)
    assert users == []
    join = room.join(room.code_of(host), "203.0.113.1")
    room.run(1)
    grants = [client.of(PeerPresent)[0].turn for client in (host, join)]
    assert len(set(users)) == 2
    assert all(each is not None and "secret" not in repr(each) for each in grants)
    for user in users:
        assert room.hub.permits(f"1:{user}", host.address)
        assert room.hub.permits(user, join.address)
        assert not room.hub.permits(user, Address("192.0.2.9", 1))
    host.close()
    join.close()
    room.run(1)
    assert not room.hub.permits(users[0], host.address)


def test_a_message_of_the_day_cannot_move_the_cursor() -> None:
    """Control and direction characters are taken out, and one line's length is kept."""
    room = Room(motd="\x1b[2J\x07\u202eHi!\n" + "x" * 50_000)
    host = room.host()
    room.run(1)
    [welcomed] = host.of(Welcomed)
    assert welcomed.welcome.motd.startswith("[2JHi!xxx")
    assert len(welcomed.welcome.motd) == MAX_MOTD
    assert welcomed.welcome.motd.isprintable()


def test_misuse_is_refused() -> None:
    """A joining side needs a code, a host must not bring one, and a meeting opens once."""
    room = Room()
    for role, code in ((Role.HOST, Code.from_secret(1, 1)), (Role.JOIN, None)):
        with pytest.raises(UsageError):
            Meeting(role, pake_factory=room.pake, entropy=room.dice.randbytes, code=code)
    meeting = opened_host()
    with pytest.raises(UsageError):
        meeting.open(0)
    with pytest.raises(UsageError):
        Meeting(Role.HOST, pake_factory=room.pake, entropy=room.dice.randbytes).reopen(0)


@pytest.mark.parametrize(
    "data",
    [
        b'{"t":"candidate","foundation":"1","component":1,"transport":"udp","priority":1,"host":"a","port":65536}',
        encode(DESCRIPTION).replace(b"ab" * 32, b"AB" * 32),
        encode(Bye(0, "x" * 501)),
        encode(Hello("x" * 65)),
        encode(Hello("x" * 5000)),
        b'{"t":"hello","name":true}',
        b"[" * 4000,
        b"",
    ],
)
def test_signals_are_bounded(data: bytes) -> None:
    """Numbers out of range, long texts and wrong types are one error."""
    with pytest.raises(MalformedSignal):
        decode(data)


def opened_host() -> Meeting:
    room = Room()
    meeting = Meeting(Role.HOST, pake_factory=room.pake, entropy=room.dice.randbytes)
    meeting.open(0)
    return meeting


def error_of(meeting: Meeting) -> CrowlineError:
    event = meeting.next_event()
    assert isinstance(event, MeetingFailed)
    return event.error

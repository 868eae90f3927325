"""What an attacker may try on an agent, and what comes of it."""

from __future__ import annotations

import ipaddress
import random
import struct
from itertools import pairwise

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.ice.agent import IceAgent
from crowline.ice.budget import KEPT_FOR_HEARD, MAX_UNANSWERED, MAX_UNANSWERED_PER_HOST
from crowline.ice.checklist import MAX_PAIRS
from crowline.ice.outstanding import MAX_OUTSTANDING
from crowline.ice.remotes import MAX_PEER_REFLEXIVE, MAX_REMOTE_CANDIDATES
from crowline.stun.attributes import (
    IceControlled,
    IceControlling,
    UnknownAttribute,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from crowline.stun.message import Message, MessageClass, Method
from puppet import (
    BASE,
    HOST_PRIORITY,
    OTHER_REMOTE,
    REMOTE,
    STRANGER,
    Puppet,
    error_code,
    events,
    remote,
    request,
    requests,
)

HIGH_TIE = 2**64 - 1


def met(controlling: bool = False, **options: object) -> Puppet:
    puppet = Puppet(controlling, **options)  # type: ignore[arg-type]
    puppet.meet(remote(OTHER_REMOTE))
    puppet.sent()
    return puppet


# --- forged requests ------------------------------------------------------------------------------------


def forged(puppet: Puppet, how: str) -> tuple[bytes, int]:
    """A check that nobody with the password made, wanting a role change; and the error that is due."""
    claim = puppet.claim(controlling=puppet.agent.controlling, tie=0)
    ufrag = puppet.agent.ufrag
    if how == "unsigned":
        return puppet.check(claim=claim, signed=False), 400
    if how == "no user name":
        message = Message(Method.BINDING, MessageClass.REQUEST, bytes(12), (claim,))
        return message.encode(key=puppet.agent.pwd.encode(), fingerprint=True), 400
    if how == "wrong key":
        return puppet.check(claim=claim, key="x" * 24), 401
    username = {
        "wrong user name": f"nobody:{puppet.ufrag}",
        "wrong sender": f"{ufrag}:somebody",
        "no colon": ufrag,
        "extra colon": f"{ufrag}:{puppet.ufrag}:",
        "empty sender": f"{ufrag}:",
    }[how]
    return puppet.check(claim=claim, username=username), 401


@pytest.mark.parametrize(
    "how",
    [
        "unsigned", "no user name", "wrong key", "wrong user name", "wrong sender", "no colon",
        "extra colon", "empty sender",
    ],
)  # fmt: skip
def test_a_forged_check_gets_an_unsigned_error_and_changes_nothing(how: str) -> None:
    """No pair, no triggered check, no role change; the refusal proves nothing about us."""
    puppet = met()
    data, code = forged(puppet, how)
    puppet.receive(data, STRANGER, 0.1)
    answer = puppet.one()
    assert error_code(answer) == code
    assert not request(answer).is_signed
    assert not puppet.agent.controlling
    assert events(puppet.agent) == []


def test_refusals_do_not_make_a_reflector() -> None:
    """A flood of forged checks from one forged source gets a few answers, all no longer than the question."""
    puppet = met()
    data, _ = forged(puppet, "wrong key")
    for _ in range(500):
        puppet.receive(data, STRANGER, 0.1)
    answers = puppet.sent()
    assert len(answers) == MAX_UNANSWERED
    assert all(len(answer.data) <= len(data) for answer in answers)


def test_forged_sources_without_number_are_met_with_silence_in_the_end() -> None:
    """The memory for counting refusals is bounded, and beyond it nothing is answered."""
    puppet = met()
    data, _ = forged(puppet, "wrong key")
    for number in range(2000):
        puppet.receive(data, Address(f"10.9.{number // 250}.{number % 250}", 9), 0.1)
    assert len(puppet.sent()) == 512


def test_a_signed_check_with_an_unknown_attribute_gets_a_signed_420() -> None:
    """Comprehension-required means that it is not acted on."""
    puppet = met()
    puppet.receive(puppet.check(UnknownAttribute(0x7777, b"")), STRANGER, 0.1)
    answer = puppet.one()
    assert error_code(answer) == 420
    assert request(answer).is_signed


# --- forged responses -----------------------------------------------------------------------------------


def test_a_response_counts_only_from_where_the_request_went() -> None:
    """Right id and key from another port, or at another base, is dropped; the true one still counts."""
    puppet = Puppet(True)
    second = Address("192.0.2.77", 1000)
    puppet.meet()
    check = puppet.one()
    puppet.agent.add_local_candidate(puppet.factory.host(second), 0.0)
    puppet.sent()
    success = puppet.success(check)
    puppet.receive(success, Address(REMOTE.host, REMOTE.port + 1), 0.01)
    puppet.receive(success, STRANGER, 0.01)
    puppet.agent.receive(success, REMOTE, 0.01, second)
    assert events(puppet.agent) == []
    assert puppet.agent.counters["answer to nothing"] == 3
    puppet.receive(success, REMOTE, 0.02)
    assert len(events(puppet.agent)) == 1


def test_a_response_without_the_right_signature_is_dropped() -> None:
    """Unsigned, or signed with our own password: the transaction goes on waiting."""
    puppet = Puppet(True)
    puppet.meet()
    check = puppet.one()
    puppet.receive(puppet.success(check, signed=False), now=0.01)
    puppet.receive(puppet.success(check, key=puppet.agent.pwd), now=0.01)
    puppet.receive(puppet.error(check, 400, signed=False), now=0.01)
    puppet.receive(puppet.error(check, 487, signed=False), now=0.01)
    assert events(puppet.agent) == []
    assert puppet.agent.controlling
    assert puppet.agent.counters["answer not verified"] == 4
    puppet.answer(check, 0.02)
    assert len(events(puppet.agent)) == 1


def test_a_response_to_an_unknown_transaction_is_dropped() -> None:
    """Signed as it may be."""
    puppet = Puppet(True)
    puppet.meet()
    message = Message(Method.BINDING, MessageClass.SUCCESS, bytes(12), (XorMappedAddress(BASE),))
    puppet.receive(message.encode(key=puppet.pwd.encode(), fingerprint=True), now=0.01)
    assert puppet.agent.counters["answer to nothing"] == 1
    assert events(puppet.agent) == []


def test_a_success_without_an_address_is_no_success() -> None:
    """The mapped address is what the check is for."""
    puppet = Puppet(True)
    puppet.meet()
    answer = request(puppet.one()).message.answer(MessageClass.SUCCESS)
    puppet.receive(answer.encode(key=puppet.pwd.encode(), fingerprint=True), now=0.01)
    assert events(puppet.agent) == []


def test_a_replayed_success_is_dropped() -> None:
    """Each transaction ends with its first answer."""
    puppet = Puppet(False)
    puppet.meet()
    check = puppet.one()
    puppet.answer(check, 0.04)
    puppet.answer(check, 0.05, mapped=STRANGER)
    (pair,) = puppet.agent.valid_pairs()
    assert pair.local.address == BASE


# --- malformed attributes -------------------------------------------------------------------------------


def raw_attribute(number: int, value: bytes) -> bytes:
    return struct.pack("!HH", number, len(value)) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (0x0025, b"\x01"),
        (0x0024, b"\x01\x02\x03"),
        (0x0024, b""),
        (0x8029, b"1234567"),
        (0x802A, b"123456789"),
    ],
)
def test_a_malformed_ice_attribute_drops_the_message(number: int, value: bytes) -> None:
    """USE-CANDIDATE with a value, PRIORITY or tie-breaker of another size: no answer, no change."""
    puppet = met()
    good = puppet.check()
    # The malformed attribute stands before all others; header length is adjusted, integrity does not matter.
    body = raw_attribute(number, value) + good[20:]
    puppet.receive(good[:2] + len(body).to_bytes(2, "big") + good[4:20] + body, now=0.1)
    assert puppet.agent.counters["malformed"] == 1
    assert puppet.sent() == events(puppet.agent) == []


def test_a_check_without_priority_or_with_two_roles_is_dropped() -> None:
    """It parses and is signed, but makes no sense: no answer, no pair, no role change."""
    puppet = met()
    puppet.receive(puppet.check(priority=None), now=0.1)
    puppet.receive(puppet.check(IceControlled(0), claim=IceControlling(HIGH_TIE)), now=0.1)
    assert puppet.agent.counters["check without sense"] == 2
    assert puppet.sent() == events(puppet.agent) == []


def test_noise_is_counted_and_dropped() -> None:
    """Random bytes, other methods, indications and unknown bases never raise and never answer."""
    puppet = met()
    noise = random.Random(5)
    for _ in range(500):
        puppet.receive(noise.randbytes(noise.randrange(60)), STRANGER, 0.1)
    allocate = Message(Method.ALLOCATE, MessageClass.REQUEST, bytes(12))
    indication = Message(Method.BINDING, MessageClass.INDICATION, bytes(12))
    puppet.receive(allocate.encode(), STRANGER, 0.1)
    puppet.receive(indication.encode(), STRANGER, 0.1)
    puppet.agent.receive(puppet.check(), STRANGER, 0.1, STRANGER)
    assert puppet.sent() == events(puppet.agent) == []
    assert puppet.agent.counters["malformed"] == 500
    assert puppet.agent.counters["unknown base"] == 1


# --- hostile candidate lists ----------------------------------------------------------------------------


def test_ten_thousand_candidates_are_cut_down() -> None:
    """64 are kept, at most 100 pairs and 100 checks, each Ta apart; duplicates count for nothing."""
    puppet = Puppet(True)
    puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.77", 1000)), 0.0)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    for number in range(10_000):
        address = Address(f"44.1.{number // 200 % 200}.{number % 200 + 1}", 1 + number // 2 * 2)
        puppet.agent.add_remote_candidate(remote(address, HOST_PRIORITY - number, str(number)), 0.0)
    sent = puppet.sent_by(0.498)
    assert len(sent) == MAX_PAIRS
    assert len({each.destination for _, each in sent}) <= MAX_REMOTE_CANDIDATES
    assert all(later - earlier >= 0.005 - 1e-9 for (earlier, _), (later, _) in pairwise(sent))
    assert len({request(each).message.transaction_id for _, each in sent}) <= MAX_OUTSTANDING
    assert puppet.agent.counters["remote candidate ignored"] == 10_000 - MAX_REMOTE_CANDIDATES


def test_a_silent_address_gets_no_more_than_twenty_datagrams() -> None:
    """Four bases would retransmit to it seven times each; some is kept for when it is heard."""
    puppet = Puppet(True)
    for number in range(3):
        puppet.agent.add_local_candidate(puppet.factory.host(Address("192.0.2.80", 1000 + number)), 0.0)
    puppet.meet()
    sent = puppet.sent_by(200.0)
    assert len(sent) == MAX_UNANSWERED - KEPT_FOR_HEARD
    assert puppet.agent.counters["held back"] == 4 * 7 - len(sent)


def test_a_voice_hammer_on_one_host_is_small() -> None:
    """Fifty candidates on one victim: at most 100 datagrams, paced, then silence."""
    puppet = Puppet(True)
    ports = [remote(Address("198.51.100.2", 2000 + n), HOST_PRIORITY - n, str(n)) for n in range(50)]
    puppet.meet(*ports)
    sent = puppet.sent_by(200.0)
    assert len(sent) == MAX_UNANSWERED_PER_HOST
    assert sent[-1][0] < 10.0


def test_checks_from_an_address_do_not_lift_its_limit_but_are_all_answered() -> None:
    """Whoever knows the password may forge a source; only an answer to a question of ours proves it."""
    puppet = Puppet(False)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    answers = checks = 0
    for number in range(100):
        puppet.receive(puppet.check(), REMOTE, number * 0.01)
        sent = puppet.sent()
        checks += len(requests(sent))
        answers += len(sent) - len(requests(sent))
    assert (answers, checks) == (100, MAX_UNANSWERED)


def test_an_address_that_answered_has_no_limit() -> None:
    """After the first success consent goes on for ever."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    (pair,) = puppet.agent.valid_pairs()
    puppet.agent.use(pair, 0.05)
    count = 0
    while (now := puppet.agent.next_timeout()) is not None and now < 300:
        puppet.agent.handle_timeout(now)
        for each in puppet.sent():
            count += 1
            puppet.answer(each, now + 0.02)
    assert count > 2 * MAX_UNANSWERED


@pytest.mark.parametrize(
    "address",
    [
        Address("127.0.0.1", 22), Address("169.254.169.254", 80), Address("192.168.1.1", 80),
        Address("224.0.0.1", 5000), Address("255.255.255.255", 5000), Address("0.0.0.0", 5000),
        Address("44.1.1.1", 0), Address("::1", 5000), Address("ff02::1", 5000),
        Address("::ffff:127.0.0.1", 5000),
    ],
)  # fmt: skip
def test_a_candidate_that_the_policy_refuses_is_never_sent_to(address: Address) -> None:
    """Loopback, metadata, private, multicast, broadcast and port 0, signalled or as a source of checks."""
    puppet = Puppet(False, permits=AddressPolicy().permits)
    puppet.agent.add_local_candidate(puppet.factory.host(Address("2001:db8::1", 1000)), 0.0)
    puppet.meet(remote(address))
    puppet.receive(puppet.check(), address, 0.1)
    assert requests([each for _, each in puppet.sent_by(60.0)]) == []


def test_a_private_candidate_is_checked_where_the_user_allows_it() -> None:
    """The policy is the caller's: a range that is named is open."""
    policy = AddressPolicy(allow=[ipaddress.ip_network("192.168.1.0/24")])
    puppet = Puppet(False, permits=policy.permits)
    puppet.meet(remote(Address("192.168.1.9", 5000)), remote(Address("192.168.2.9", 5000)))
    assert {each.destination.host for _, each in puppet.sent_by(1.0)} == {"192.168.1.9"}


@pytest.mark.parametrize(
    "address",
    [
        Address("224.0.0.1", 5000), Address("0.0.0.0", 5000), Address("44.1.1.1", 0),
        Address("ff02::1", 5000), Address("::ffff:224.0.0.1", 5000), Address("::ffff:255.255.255.255", 5000),
    ],
)  # fmt: skip
def test_what_is_no_unicast_address_is_refused_without_any_policy(address: Address) -> None:
    """The default of an agent permits one host at a time and no port 0."""
    puppet = Puppet(True)
    puppet.agent.add_local_candidate(puppet.factory.host(Address("2001:db8::1", 1000)), 0.0)
    puppet.meet(remote(address))
    assert puppet.sent_by(60.0) == []


# --- replays and forged sources -------------------------------------------------------------------------


def test_a_replayed_check_from_another_source_makes_one_candidate_that_is_never_nominated() -> None:
    """The forged source gets a bounded number of checks; without an answer of its own it stays unproven."""
    puppet = Puppet(False)
    puppet.meet()
    check = puppet.check(use_candidate=True)
    puppet.receive(check, REMOTE, 0.01)
    puppet.answer(requests(puppet.sent())[0], 0.04)
    for number in range(50):
        puppet.receive(check, STRANGER, 0.1 + number / 100)
    triggered = requests([each for _, each in puppet.sent_by(60.0)])
    assert {each.destination for each in triggered} == {STRANGER}
    assert len(triggered) <= MAX_UNANSWERED
    assert [pair.remote.address for pair in puppet.agent.valid_pairs()] == [REMOTE]
    assert puppet.agent.selected is puppet.agent.valid_pairs()[0]


def test_replays_from_many_sources_make_few_candidates() -> None:
    """A captured check cannot fill the tables."""
    puppet = Puppet(False)
    puppet.agent.set_remote(puppet.ufrag, puppet.pwd, 0.0)
    check = puppet.check()
    for number in range(1000):
        puppet.receive(check, Address(f"44.1.1.{number % 250}", 1000 + number), 0.1)
    targets = {each.destination for each in requests([each for _, each in puppet.sent_by(5.0)])}
    assert len(targets) == MAX_PEER_REFLEXIVE


# --- credentials ----------------------------------------------------------------------------------------


def test_credentials_are_long_and_never_the_same() -> None:
    """At least 24 and 128 bits; ten thousand agents share none."""
    entropy = random.Random(9).randbytes
    agents = [IceAgent(True, entropy=entropy) for _ in range(10_000)]
    assert len({agent.ufrag for agent in agents}) == len({agent.pwd for agent in agents}) == 10_000
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    assert all(len(agent.ufrag) * 6 >= 24 and len(agent.pwd) * 6 >= 128 for agent in agents)
    assert all(set(agent.ufrag + agent.pwd) <= allowed for agent in agents)


def test_passwords_stay_out_of_reprs() -> None:
    """What is printed or logged by accident shows no password."""
    puppet = met()
    shown = repr(puppet.agent._session.credentials)
    assert puppet.agent.pwd not in shown
    assert puppet.pwd not in shown


def test_a_use_candidate_without_authentication_nominates_nothing() -> None:
    """The attribute counts only in a check that is signed by the other side."""
    puppet = Puppet(False)
    puppet.meet()
    puppet.answer(puppet.one(), 0.04)
    claim = puppet.claim()
    username = Username(f"{puppet.agent.ufrag}:{puppet.ufrag}")
    message = Message(Method.BINDING, MessageClass.REQUEST, bytes(12), (username, claim, UseCandidate()))
    puppet.receive(message.encode(fingerprint=True), now=0.05)
    assert puppet.agent.selected is None


def test_extra_colons_are_refused_before_the_description_too() -> None:
    """Nothing is known yet to compare the sender with; its form alone is wrong."""
    puppet = Puppet(False)
    for tail in ("someone:else", "", "x" * 257):
        puppet.receive(puppet.check(username=f"{puppet.agent.ufrag}:{tail}"))
        assert error_code(puppet.one()) == 401


def test_checks_before_the_description_are_bounded() -> None:
    """Each is answered; a few are remembered."""
    puppet = Puppet(False)
    for number in range(1000):
        puppet.receive(puppet.check(), Address("198.51.100.2", 1000 + number))
    assert len(puppet.sent()) == 1000
    assert len(puppet.agent._checker.answering._early) == 32

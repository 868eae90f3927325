"""Attacks on the long-term credentials of TURN, named after the rows of the threat list."""

from __future__ import annotations

import pytest

from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import (
    long_term_key,
    long_term_key_sha256,
    sha1_integrity,
    sha256_integrity,
    userhash,
)
from crowline.stun.message import Message, MessageClass, Method, Received, parse
from crowline.stun.nonce_cookie import read_features, write_cookie
from crowline.stun.password_algorithms import OFFERED, Algorithm, write_choice
from crowline.turn.auth import (
    NONCE_KEY_LIFETIME,
    NONCE_LIFETIME,
    Authenticated,
    NonceMint,
    Rejected,
    issue_credentials,
)
from crowline.turn.client import TurnClient
from crowline.turn.codes import BAD_REQUEST, STALE_NONCE, UNAUTHORIZED
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.events import Allocated, AllocationFailed
from long_term import REALM, authenticator, check, nonce_for, request
from turn_pair import CLIENT, EXPIRES, SECRET, SERVER, entropy

MD5_ONLY = a.PasswordAlgorithms(bytes.fromhex("00010000"))
REVERSED = a.PasswordAlgorithms(bytes.fromhex("0001000000020000"))

# --- A3: nonces -----------------------------------------------------------------------------------------


def test_a3_processes_with_one_key_share_their_nonces() -> None:
    """A nonce of one process is fresh in another with the same key, and stale with another key."""
    first, second = authenticator(nonce_key=b"k" * 32), authenticator(nonce_key=b"k" * 32)
    other = authenticator(nonce_key=b"o" * 32)
    received = request(nonce_for(first))
    assert isinstance(check(second, received), Authenticated)
    assert check(other, received) == Rejected(STALE_NONCE)


@pytest.mark.parametrize("position", range(28))
def test_a3_every_character_of_a_nonce_counts(position: int) -> None:
    """A nonce with any character changed, the cookie's among them, is stale."""
    mint = NonceMint(b"k" * 32, "obMatJos2gAAB")
    nonce = mint.mint(CLIENT, 1000.0)
    assert len(nonce) == 28
    assert mint.is_fresh(nonce, CLIENT, 1000.0)
    other = "C" if nonce[position] != "C" else "D"
    assert not mint.is_fresh(nonce[:position] + other + nonce[position + 1 :], CLIENT, 1000.0)


def test_a3_nonces_outlive_the_change_of_their_key() -> None:
    """The key is another one each hour: a nonce from before is good for its lifetime, and never again, also
    when the seconds that it names come round after 194 days."""
    mint = NonceMint(b"k" * 32)
    late = NONCE_KEY_LIFETIME - 1.0
    nonce = mint.mint(CLIENT, late)
    mint.mint(CLIENT, late + 1)
    assert mint.is_fresh(nonce, CLIENT, late + NONCE_LIFETIME)
    assert not mint.is_fresh(nonce, CLIENT, late + NONCE_LIFETIME + 1)
    assert not mint.is_fresh(nonce, CLIENT, late + 2**24)


# --- A7: bidding down -----------------------------------------------------------------------------------


def test_a7_what_the_server_offers_is_what_it_says_in_the_cookie() -> None:
    """A challenge carries the algorithms and the cookie bit that protects them."""
    challenge = authenticator().challenge(CLIENT, 0.0)
    assert OFFERED in challenge
    assert read_features(nonce_for(authenticator())).password_algorithms


@pytest.mark.parametrize("offered", [None, MD5_ONLY, REVERSED, a.PasswordAlgorithms(b"")])
@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a7_a_changed_list_is_400(offered: a.PasswordAlgorithms | None, algorithm: Algorithm) -> None:
    """A client that was shown another list echoes it, and the server refuses before looking at anything."""
    auth = authenticator()
    received = request(nonce_for(auth), algorithm=algorithm, offered=offered)
    assert check(auth, received) == Rejected(BAD_REQUEST)


def test_a7_a_list_without_a_choice_is_400() -> None:
    """Half of the negotiation is none."""
    auth = authenticator()
    assert check(auth, request(nonce_for(auth), "admin", "long password", None, OFFERED)) == Rejected(400)


@pytest.mark.parametrize("value", ["00030000", "0002", "00020004aabbccdd"])
def test_a7_a_choice_that_was_not_offered_is_400(value: str) -> None:
    """Unknown, damaged and decorated choices are refused."""
    auth = authenticator()
    choice = a.PasswordAlgorithm(bytes.fromhex(value))
    received = request(nonce_for(auth), "admin", "long password", None, choice, OFFERED)
    assert check(auth, received) == Rejected(BAD_REQUEST)


def test_a7_a_stripped_integrity_is_401() -> None:
    """Without MESSAGE-INTEGRITY-SHA256 the request is as good as unsigned, whatever it names."""
    auth = authenticator()
    received = request(nonce_for(auth))
    bare = parse(received.message.encode())
    assert check(auth, bare) == Rejected(UNAUTHORIZED)


@pytest.mark.parametrize("algorithm", [None, Algorithm.MD5, Algorithm.SHA256])
def test_a7_answers_are_signed_as_their_requests(algorithm: Algorithm | None) -> None:
    """RFC 8489 §9.2.4: SHA-256 for whoever named an algorithm, SHA-1 for clients of RFC 5389."""
    auth = authenticator()
    received = request(nonce_for(auth), algorithm=algorithm)
    who = check(auth, received)
    assert isinstance(who, Authenticated)
    answer = parse(who.sign(received.message.answer(MessageClass.SUCCESS), received))
    assert (answer.sha256_offset is not None) == (algorithm is not None)
    assert (answer.integrity_offset is not None) == (algorithm is None)


def test_a7_a_named_algorithm_with_the_old_integrity_gets_the_new_one_back() -> None:
    """SHA-1 over a request that names SHA-256 is accepted, and answered with SHA-256 (RFC 8489 §9.2.4)."""
    auth = authenticator()
    message = request(nonce_for(auth)).message
    received = parse(message.encode(key=long_term_key_sha256("admin", REALM, "long password")))
    who = check(auth, received)
    assert isinstance(who, Authenticated)
    assert parse(who.sign(message.answer(MessageClass.SUCCESS), received)).sha256_offset is not None


def sent(client: TurnClient) -> Message | None:
    transmit = client.next_transmit()
    return None if transmit is None else parse(transmit.data).message


def challenged(
    *attributes: a.AnyAttribute, code: int = 401, client: TurnClient | None = None
) -> tuple[TurnClient, Message | None]:
    """A client after its first request was answered with that, and what it sends then."""
    client = client or TurnClient(SERVER, "admin", Secret(b"long password"), entropy=entropy(5))
    client.allocate(0.0)
    first = sent(client)
    assert first is not None
    error = first.answer(MessageClass.ERROR, a.ErrorCode(code), *attributes)
    client.receive(error.encode(), SERVER, 0.0)
    return client, sent(client)


NONCE = write_cookie(read_features("obMatJos2gAAB")) + "rest"


def test_a7_the_client_takes_sha256_and_echoes_the_list() -> None:
    """Offered both, the client signs with SHA-256, names it, and returns the list byte for byte."""
    _, second = challenged(a.Realm(REALM), a.Nonce(NONCE), REVERSED, a.UnknownAttribute(0x8055, b""))
    assert second is not None
    assert second.get(a.PasswordAlgorithms) == REVERSED
    assert second.get(a.PasswordAlgorithm) == write_choice(Algorithm.MD5)
    _, second = challenged(a.Realm(REALM), a.Nonce(NONCE), OFFERED)
    assert second is not None
    assert second.get(a.PasswordAlgorithm) == write_choice(Algorithm.SHA256)


@pytest.mark.parametrize("bits", ["gAAA", "AAAB", "wAAD"])
def test_a7_the_client_refuses_a_challenge_without_its_list(bits: str) -> None:
    """The cookie says that there were algorithms, and there are none: the client does not go on."""
    client, second = challenged(a.Realm(REALM), a.Nonce(f"obMatJos2{bits}rest"))
    assert second is None
    event = client.next_event()
    assert isinstance(event, AllocationFailed)
    assert event.code == 401


def test_a7_the_client_refuses_a_list_of_strangers() -> None:
    """A list without any algorithm that we know ends the attempt (RFC 8489 §9.2.5)."""
    client, second = challenged(
        a.Realm(REALM), a.Nonce(NONCE), a.PasswordAlgorithms(bytes.fromhex("00990000"))
    )
    assert second is None
    assert isinstance(client.next_event(), AllocationFailed)


def test_a7_a_cleared_cookie_bit_is_found_by_the_server() -> None:
    """List stripped and cookie cleared: the client falls for it, the server does not know the nonce: 438."""
    auth = authenticator()
    stripped = nonce_for(auth).replace("gAAB", "AAAA")
    _, second = challenged(a.Realm(REALM), a.Nonce(stripped))
    assert second is not None
    signed = parse(second.encode(key=long_term_key("admin", REALM, "long password")))
    assert check(auth, signed) == Rejected(STALE_NONCE)


def test_a7_after_sha256_a_challenge_without_it_is_refused() -> None:
    """A server that could do better once does not get less afterwards, neither by 438 nor by 401."""
    for code in (STALE_NONCE, UNAUTHORIZED):
        credentials = LongTermCredentials("admin", Secret(b"long password"))
        plain = Message(Method.REFRESH, MessageClass.REQUEST, b"t" * 12)
        good = plain.answer(MessageClass.ERROR, a.ErrorCode(401), a.Realm(REALM), a.Nonce(NONCE), OFFERED)
        assert credentials.take_challenge(401, parse(good.encode()), None)
        worse = plain.answer(MessageClass.ERROR, a.ErrorCode(code), a.Realm(REALM), a.Nonce("other"))
        used = NONCE if code == STALE_NONCE else None
        assert not credentials.take_challenge(code, parse(worse.encode()), used)
        assert parse(credentials.sign(plain)).sha256_offset is not None


def test_a7_after_sha256_answers_signed_with_sha1_are_refused() -> None:
    """The right key does not make a SHA-1 answer good where the request had SHA-256."""
    client, second = challenged(a.Realm(REALM), a.Nonce(NONCE), OFFERED)
    assert second is not None
    key = long_term_key_sha256("admin", REALM, "long password")
    success = second.answer(
        MessageClass.SUCCESS, a.XorRelayedAddress(SERVER), a.Lifetime(600), a.XorMappedAddress(CLIENT)
    )
    client.receive(success.encode(key=key), SERVER, 0.0)
    assert client.next_event() is None
    client.receive(success.encode(key=key, sha256=True), SERVER, 0.0)
    assert isinstance(client.next_event(), Allocated)


def test_a7_an_answer_whose_list_was_stripped_is_ignored() -> None:
    """RFC 8489 §9.2.5: any other answer with the cookie bit and without the list does not count."""
    client = TurnClient(SERVER, "admin", Secret(b"long password"), entropy=entropy(5))
    client.allocate(0.0)
    first = sent(client)
    assert first is not None
    client.receive(first.answer(MessageClass.ERROR, a.ErrorCode(508), a.Nonce(NONCE)).encode(), SERVER, 0.0)
    assert client.next_event() is None
    client.receive(first.answer(MessageClass.ERROR, a.ErrorCode(508)).encode(), SERVER, 0.0)
    assert isinstance(client.next_event(), AllocationFailed)


def test_a7_clients_of_rfc_5389_are_served() -> None:
    """Neither list nor choice: MD5 and SHA-1, as coturn's clients do it."""
    auth = authenticator()
    assert isinstance(check(auth, request(nonce_for(auth), algorithm=None)), Authenticated)


# --- hidden user names ----------------------------------------------------------------------------------


def test_hidden_names_of_static_users_are_found() -> None:
    """USERHASH in place of USERNAME authenticates the user it stands for; an unknown hash is 401."""
    auth = authenticator()
    nonce = nonce_for(auth)
    who = check(auth, request(nonce, name=a.Userhash(userhash("admin", REALM))))
    assert isinstance(who, Authenticated)
    assert (who.username, who.user) == ("admin", "admin")
    assert check(auth, request(nonce, name=a.Userhash(bytes(32)))) == Rejected(UNAUTHORIZED)


def test_hidden_names_of_time_limited_users_need_who_knows_them() -> None:
    """A hash cannot be inverted: the cookie asks for hidden names only where somebody can find them."""
    username, password = issue_credentials(SECRET, "mailbox", EXPIRES)
    hidden = a.Userhash(userhash(username, REALM))
    auth = authenticator()
    assert not read_features(nonce_for(auth)).username_anonymity
    assert check(auth, request(nonce_for(auth), username, password, name=hidden)) == Rejected(UNAUTHORIZED)
    auth = authenticator(name_of={hidden.value: username}.get)
    assert read_features(nonce_for(auth)).username_anonymity
    who = check(auth, request(nonce_for(auth), username, password, name=hidden))
    assert isinstance(who, Authenticated)
    assert (who.username, who.user) == (username, "mailbox")


def test_the_client_hides_its_name_where_it_is_asked_to() -> None:
    """With the anonymity bit the name never goes over the wire."""
    _, second = challenged(a.Realm(REALM), a.Nonce("obMatJos2wAADrest"), OFFERED)
    assert second is not None
    assert second.get(a.Username) is None
    assert second.get(a.Userhash) == a.Userhash(userhash("admin", REALM))
    assert b"admin" not in second.encode()


# --- A6: two integrities -----------------------------------------------------------------------------------


def test_a6_both_integrities_from_one_client_are_judged_by_the_stronger() -> None:
    """SHA-256 decides where a client signs twice (RFC 8489 §9.1.2): right twice is accepted."""
    auth = authenticator()
    plain = request(nonce_for(auth), algorithm=None).message.encode()
    key = long_term_key("admin", REALM, "long password")

    def with_both(sha256: bytes) -> Received:
        value = sha1_integrity(plain, key)
        data = plain + b"\x00\x08\x00\x14" + value
        data = data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
        data += b"\x00\x1c\x00\x20" + sha256
        return parse(data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:])

    first = plain + b"\x00\x08\x00\x14" + sha1_integrity(plain, key)
    assert isinstance(check(auth, with_both(sha256_integrity(first, key))), Authenticated)
    assert check(auth, with_both(bytes(32))) == Rejected(UNAUTHORIZED)

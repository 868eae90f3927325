"""Attacks on the long-term credentials of TURN, named after the rows of the threat list."""

from __future__ import annotations

import base64
import gc
import logging
import statistics
import sys
import time

import pytest

from crowline.base.addresses import Address
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
from crowline.stun.password_algorithms import OFFERED, Algorithm, derive_key, write_choice
from crowline.turn.auth import Authenticated, Authenticator, NonceMint, Rejected, issue_credentials
from crowline.turn.client import TurnClient
from crowline.turn.codes import BAD_REQUEST, NO_ANSWER, STALE_NONCE, UNAUTHORIZED
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.events import Allocated, AllocationFailed
from crowline.turn.throttle import SOURCE, USER, PasswordThrottle
from turn_pair import CLIENT, EPOCH, EXPIRES, OTHER_CLIENT, SECRET, SERVER, World, entropy

REALM = "crowline"
TRANSPORT = a.RequestedTransport(17)
MD5_ONLY = a.PasswordAlgorithms(bytes.fromhex("00010000"))
REVERSED = a.PasswordAlgorithms(bytes.fromhex("0001000000020000"))
ADMIN = {"admin": Secret(b"long password")}


def authenticator(**options: object) -> Authenticator:
    return Authenticator(SECRET, entropy=entropy(1), epoch=EPOCH, users=ADMIN, **options)  # type: ignore[arg-type]


def nonce_for(auth: Authenticator, client: Address = CLIENT, now: float = 0.0) -> str:
    return next(item.value for item in auth.challenge(client, now) if isinstance(item, a.Nonce))


def request(
    nonce: str,
    user: str = "admin",
    password: str = "long password",
    algorithm: Algorithm | None = Algorithm.SHA256,
    *extra: a.AnyAttribute,
    offered: a.PasswordAlgorithms | None = OFFERED,
    name: a.AnyAttribute | None = None,
) -> Received:
    """A signed Allocate as a client of RFC 8489 writes it, or without `algorithm` one of RFC 5389."""
    proof: list[a.AnyAttribute] = [TRANSPORT, name or a.Username(user), a.Realm(REALM), a.Nonce(nonce)]
    if algorithm is not None:
        proof.append(write_choice(algorithm))
    if algorithm is not None and offered is not None:
        proof.append(offered)
    key = derive_key(algorithm or Algorithm.MD5, user, REALM, password)
    message = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (*proof, *extra))
    return parse(message.encode(key=key, sha256=algorithm is not None))


def check(
    auth: Authenticator, received: Received, client: Address = CLIENT, now: float = 0.0
) -> Authenticated | Rejected:
    return auth.check(received, client, now, is_new=True)


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


# --- A9: who exists -------------------------------------------------------------------------------------


class Anything(PasswordThrottle):
    """A throttle that lets everything pass, so that the work behind it can be measured."""

    def may_try(self, user: str, source: Address, now: float) -> bool:
        return True


def median_times(auth: Authenticator, requests: list[Received], rounds: int) -> list[float]:
    """Seconds of the median check of each request, taken in turns so that noise meets all of them."""
    times: list[list[float]] = [[] for _ in requests]
    gc.disable()
    try:
        for _ in range(rounds):
            for received, own in zip(requests, times, strict=True):
                before = time.perf_counter()
                auth.check(received, CLIENT, 0.0, is_new=True)
                own.append(time.perf_counter() - before)
    finally:
        gc.enable()
    return [statistics.median(own) for own in times]


def test_a9_time_tells_nobody_which_users_exist() -> None:
    """The median of thousands of refusals is about the same for unknown users and for wrong passwords."""
    auth = authenticator(throttle=Anything())
    nonce = nonce_for(auth)
    requests = [request(nonce, user, "guess") for user in ("admin", "nobod")]
    ratio = 0.0
    for _ in range(5):
        known, unknown = median_times(auth, requests, 1000)
        ratio = max(known, unknown) / min(known, unknown)
        if ratio < 1.15:
            return
    pytest.fail(f"known and unknown users differ by a factor of {ratio:.2f}")


# --- A10: guessing --------------------------------------------------------------------------------------


def guesses(auth: Authenticator, sources: list[Address], *, start: float, step: float) -> int:
    """How many wrong passwords of `admin`, one from each source, are looked at and not dropped."""
    looked_at = 0
    for n, source in enumerate(sources):
        now = start + n * step
        received = request(nonce_for(auth, source, now), password=f"guess {n}")
        looked_at += check(auth, received, source, now) == Rejected(UNAUTHORIZED)
    return looked_at


def test_a10_one_source_gets_a_few_guesses_and_then_two_a_minute() -> None:
    """Ten thousand guesses in a hundred seconds: the free ones, the doubling waits, and silence between."""
    auth = authenticator()
    looked_at = guesses(auth, [OTHER_CLIENT] * 10_000, start=0.0, step=0.01)
    assert looked_at <= USER.free + 5 + 100 / USER.longest + 2
    right = request(nonce_for(auth, OTHER_CLIENT, 100.0))
    assert check(auth, right, OTHER_CLIENT, 100.0) == Rejected(NO_ANSWER)


def test_a10_one_source_cannot_try_many_users() -> None:
    """A list of user names from one source ends as one name does."""
    auth = authenticator()
    looked_at = 0
    for n in range(10_000):
        received = request(nonce_for(auth, OTHER_CLIENT, n / 100), f"user{n}", "guess")
        looked_at += check(auth, received, OTHER_CLIENT, n / 100) == Rejected(UNAUTHORIZED)
    assert looked_at <= SOURCE.free + 5 + 100 / SOURCE.longest + 2


def test_a10_one_user_is_guessed_slowly_from_many_sources() -> None:
    """Ten thousand sources with a guess each get no more than one source."""
    auth = authenticator()
    sources = [Address(f"44.10.{n >> 8}.{n & 255}", 4000) for n in range(10_000)]
    assert guesses(auth, sources, start=0.0, step=0.01) <= USER.free + 5 + 100 / USER.longest + 2


def test_a10_the_user_goes_on_while_others_guess() -> None:
    """Who got in before is served at the height of the attack: at that address, and from that host anew."""
    auth = authenticator()
    assert isinstance(check(auth, request(nonce_for(auth))), Authenticated)
    sources = [Address(f"44.10.0.{n}", 4000) for n in range(200)]
    guesses(auth, sources, start=1.0, step=0.01)
    again = Address(CLIENT.host, 9999)
    for client in (CLIENT, again):
        assert isinstance(check(auth, request(nonce_for(auth, client, 3.0)), client, 3.0), Authenticated)
    stranger = Address("44.20.0.1", 1)
    received = request(nonce_for(auth, stranger, 3.0))
    assert check(auth, received, stranger, 3.0) == Rejected(NO_ANSWER)


def test_a10_neighbours_of_a_guesser_are_served() -> None:
    """Behind one NAT with a guesser: who has got in stays in, and time-limited users get in at any time."""
    auth = authenticator()
    guesser = Address(CLIENT.host, 7777)
    assert isinstance(check(auth, request(nonce_for(auth))), Authenticated)
    guesses(auth, [guesser] * 10_000, start=1.0, step=0.01)
    assert isinstance(check(auth, request(nonce_for(auth, CLIENT, 101.0)), CLIENT, 101.0), Authenticated)
    username, password = issue_credentials(SECRET, "mailbox", EXPIRES)
    newcomer = Address(CLIENT.host, 8888)
    received = request(nonce_for(auth, newcomer, 101.0), username, password)
    assert isinstance(check(auth, received, newcomer, 101.0), Authenticated)
    wrong = request(nonce_for(auth, newcomer, 101.0), username, "guess")
    assert check(auth, wrong, newcomer, 101.0) == Rejected(NO_ANSWER)


def test_a10_the_wait_ends() -> None:
    """Half a minute after the last guess the right password works again, from anywhere."""
    auth = authenticator()
    guesses(auth, [OTHER_CLIENT] * 1000, start=0.0, step=0.1)
    now = 100.0 + SOURCE.longest
    for client in (OTHER_CLIENT, Address("44.20.0.1", 1)):
        assert isinstance(check(auth, request(nonce_for(auth, client, now)), client, now), Authenticated)


def test_a10_the_throttle_has_a_fixed_size() -> None:
    """A hundred thousand names from as many sources leave the tables as large as they were."""

    def size(throttle: PasswordThrottle) -> int:
        parts = [throttle._known, *vars(throttle._users).values(), *vars(throttle._sources).values()]
        return sum(sys.getsizeof(part) for part in parts)

    throttle = PasswordThrottle()
    before = size(throttle)
    for n in range(100_000):
        source = Address(f"44.{n >> 16}.{n >> 8 & 255}.{n & 255}", 4000)
        throttle.may_try(f"user{n}", source, n / 1000)
        throttle.failed(f"user{n}", source, n / 1000)
        throttle.succeeded(f"user{n}", source)
    assert size(throttle) == before < 1 << 20


def test_a10_a_throttled_request_meets_silence() -> None:
    """The server machine drops it, counted, so that a client with the right password asks again by itself."""
    world = World(users=ADMIN)
    auth = world.server._authenticator
    for n in range(USER.free + 2):
        received = request(nonce_for(auth), password=f"guess {n}")
        world.server.receive(received.raw, CLIENT, 0.0, SERVER)
    answers = 0
    while world.server.next_transmit() is not None:
        answers += 1
    assert answers == USER.free + 1
    assert world.server.counters["throttled"] == 1


# --- A11, A13: the passwords themselves -----------------------------------------------------------------


def test_a11_issued_passwords_are_out_of_reach_of_a_word_list() -> None:
    """A captured exchange is no use where every password has 160 bits and belongs to one name."""
    passwords = {issue_credentials(SECRET, f"user{n}", EXPIRES)[1] for n in range(1000)}
    assert len(passwords) == 1000
    assert {len(base64.b64decode(password)) * 8 for password in passwords} == {160}


def test_a13_no_key_and_no_password_is_ever_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a log at the lowest level nor a representation of any object shows a secret."""
    caplog.set_level(logging.DEBUG)
    world = World(users=ADMIN)
    client = world.allocated()
    auth = world.server._authenticator
    received = request(nonce_for(auth))
    who = check(auth, received)
    assert isinstance(who, Authenticated)
    allocation = world.server.allocations.of_client(CLIENT, SERVER)
    assert allocation is not None
    shown = [caplog.text]
    for thing in (auth, who, client, client._requests, client._requests._credentials, allocation, ADMIN):
        shown += [repr(thing), str(thing)]
    _, password = issue_credentials(SECRET, "mailbox", EXPIRES)
    secrets = [who.key, allocation.key, password.encode(), b"long password", SECRET.reveal()]
    for text in shown:
        for secret in secrets:
            assert repr(secret)[2:-1] not in text
            assert secret.hex() not in text


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

"""Guessing users and passwords of TURN, named after the rows of the threat list."""

from __future__ import annotations

import base64
import gc
import logging
import statistics
import sys
import time

import pytest

from crowline.base.addresses import Address
from crowline.stun.message import Received
from crowline.turn.auth import Authenticated, Authenticator, Rejected, issue_credentials
from crowline.turn.codes import NO_ANSWER, STALE_NONCE, UNAUTHORIZED
from crowline.turn.throttle import SOURCE, USER, PasswordThrottle
from long_term import ADMIN, authenticator, check, nonce_for, request
from turn_pair import CLIENT, EXPIRES, OTHER_CLIENT, SECRET, SERVER, World

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
    auth = authenticator(throttle=Anything)
    nonce = nonce_for(auth)
    requests = [request(nonce, user, "guess") for user in ("admin", "nobod")]
    ratio = 0.0
    for _ in range(20):
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


def test_a10_forged_sources_lock_nobody_out() -> None:
    """Failures without a fresh nonce, which anybody can send in anybody's name, cost the user nothing."""
    auth = authenticator()
    for n in range(10_000):
        forged = Address(f"44.10.{n >> 8}.{n & 255}", 4000)
        check(auth, request("a nonce of nobody", password="guess"), forged, n / 100)
        check(auth, request("a nonce of nobody", password="guess"), CLIENT, n / 100)
    received = request(nonce_for(auth, CLIENT, 100.0))
    assert isinstance(check(auth, received, CLIENT, 100.0), Authenticated)


def test_a10_stale_nonces_tell_nothing_about_passwords() -> None:
    """After a few failures a stale nonce gets 438 whatever the password: no way around the throttle."""
    auth = authenticator()
    sources = [Address(f"44.10.{n >> 8}.{n & 255}", 4000) for n in range(10_000)]
    stale = request("a nonce of nobody", password="guess")
    looked_at = sum(
        check(auth, stale, source, n / 100) == Rejected(UNAUTHORIZED) for n, source in enumerate(sources)
    )
    assert USER.free < looked_at <= USER.free + 5 + 100 / USER.longest + 2
    for password in ("guess", "long password"):
        received = request("a nonce of nobody", password=password)
        assert check(auth, received, CLIENT, 100.0) == Rejected(STALE_NONCE)


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

"""Attacks on the authentication of TURN, named after the rows of the threat list."""

from __future__ import annotations

import base64
import hmac
import tracemalloc

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.integrity import fingerprint, sha1_integrity, sha256_integrity
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.auth import NONCE_LIFETIME, issue_credentials
from turn_attackers import allocated
from turn_pair import (
    CLIENT,
    EPOCH,
    EXPIRES,
    OTHER_CLIENT,
    PEER,
    SECRET,
    SERVER,
    Caller,
    World,
    error_code,
)

TRANSPORT = a.RequestedTransport(17)


def append(data: bytes, *attributes: a.AnyAttribute, with_fingerprint: bool = False) -> bytes:
    """Add attributes behind the integrity of a signed message, lengths corrected."""
    extra = Message(Method.BINDING, MessageClass.REQUEST, data[8:20], attributes).encode()[20:]
    body = data + extra
    body = body[:2] + (len(body) - 20).to_bytes(2, "big") + body[4:]
    if not with_fingerprint:
        return body
    body += b"\x80\x28\0\4" + fingerprint(body)
    return body[:2] + (len(body) - 20).to_bytes(2, "big") + body[4:]


def test_a1_a_flood_of_allocates_stores_nothing() -> None:
    """Eight thousand sources, with and without junk integrity, leave no state and no memory behind."""
    world = World()
    plain = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT,)).encode()
    proof = (a.Username("u"), a.Realm("crowline"), a.Nonce("n"))
    junk = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT, *proof)).encode(key=b"j")

    def flood(count: int) -> None:
        for n in range(count):
            source = Address(f"44.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 1024)
            world.server.receive(junk if n % 2 else plain, source, n / 1000, SERVER)
            while world.server.next_transmit() is not None:
                pass

    flood(4_200)  # fills the caches of fixed size
    tracemalloc.start()
    flood(8_000)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(world.server.allocations) == 0
    assert world.server.next_timeout() is None
    assert grown < 1_000_000


@pytest.mark.parametrize("other", [Address("44.5.5.5", CLIENT.port), Address(CLIENT.host, CLIENT.port + 1)])
def test_a2_nonce_of_another_client_is_stale(other: Address) -> None:
    """A nonce serves only the address and port it was given to."""
    world = World()
    first, second = Caller(world), Caller(world, other)
    first.challenge()
    second.nonce = first.nonce
    assert error_code(second.allocate()) == 438


@pytest.mark.parametrize(
    "case", ["expired", "future", "flipped", "long", "empty", "other process", "not ascii"]
)
def test_a3_bad_nonces_are_stale(case: str) -> None:
    """Old, future, damaged, huge, empty and foreign nonces get a 438 with a fresh nonce that works."""
    world = World()
    world.now = 5000.0
    caller = Caller(world)
    caller.challenge()
    if case == "expired":
        world.now += NONCE_LIFETIME + 1
    elif case == "future":
        world.now -= 10
    elif case == "flipped":
        caller.nonce = ("B" if caller.nonce[9] != "B" else "C").join([caller.nonce[:9], caller.nonce[10:]])
    elif case == "long":
        caller.nonce = "x" * 763
    elif case == "empty":
        caller.nonce = "AAAA"
    elif case == "other process":
        other = Caller(World(), OTHER_CLIENT)
        other.challenge()
        caller.nonce = other.nonce
    else:
        caller.nonce = "nönce"
    answer = caller.allocate()
    assert error_code(answer) == 438
    fresh = answer.get(a.Nonce)
    assert fresh is not None
    caller.nonce = fresh.value
    assert error_code(caller.allocate()) == 0


def test_a3_nonces_last_their_lifetime() -> None:
    """Up to its last second a nonce is good."""
    caller = Caller(World())
    caller.challenge()
    caller.world.now = NONCE_LIFETIME
    assert error_code(caller.allocate()) == 0


def test_a4_replayed_requests_are_idempotent() -> None:
    """Captured requests, sent again: Allocate repeats its answer, the others repeat their effect."""
    caller = Caller(World())
    allocate = caller.signed(Method.ALLOCATE, TRANSPORT)
    first = caller.send_raw(allocate)
    assert caller.send_raw(allocate) == first
    permission = caller.signed(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER))
    assert caller.send_raw(permission) == caller.send_raw(permission)
    assert len(caller.world.ports.opened) == 1


@pytest.mark.parametrize("with_fingerprint", [False, True])
def test_a5_attributes_after_integrity_are_ignored(with_fingerprint: bool) -> None:
    """LIFETIME 0 and another peer, added behind the integrity by a stranger, have no effect."""
    caller = allocated()
    refresh = append(
        caller.signed(Method.REFRESH, a.Lifetime(900)), a.Lifetime(0), with_fingerprint=with_fingerprint
    )
    answer = caller.send(refresh)
    assert answer is not None
    assert answer.get(a.Lifetime) == a.Lifetime(900)
    late_only = append(caller.signed(Method.REFRESH), a.Lifetime(0), with_fingerprint=with_fingerprint)
    answer = caller.send(late_only)
    assert answer is not None
    assert answer.get(a.Lifetime) == a.Lifetime(600)
    permission = append(
        caller.signed(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)),
        a.XorPeerAddress(Address("44.9.9.8", 1)),
        with_fingerprint=with_fingerprint,
    )
    assert caller.send(permission) is not None
    allocation = caller.world.server.allocations.of_client(CLIENT, SERVER)
    assert allocation is not None
    assert set(allocation.permissions) == {PEER.host}


@pytest.mark.parametrize("size", [0, 4, 19, 21])
def test_a6_integrity_of_the_wrong_size_is_malformed(size: int) -> None:
    """MESSAGE-INTEGRITY that has not 20 bytes makes the message malformed: silence."""
    data = caller_proof(b"", (0x0008, bytes(size)))
    assert Caller(World()).send_raw(data) is None


@pytest.mark.parametrize(
    ("size", "answered"), [(12, False), (15, False), (16, True), (32, True), (36, False)]
)
def test_a6_sha256_sizes(size: int, answered: bool) -> None:
    """Impossible sizes are malformed; possible but truncated ones do not authenticate."""
    caller = Caller(World())
    caller.challenge()
    before = unsigned_allocate(caller)
    value = sha256_integrity(before, caller.key, size) if size <= 32 else bytes(size)
    answer = caller.send(caller_proof(before, (0x001C, value)))
    assert (answer is not None) == answered
    if answer is not None:
        assert error_code(answer) == (0 if size == 32 else 401)


def test_a6_with_both_integrities_sha256_decides() -> None:
    """A right SHA-1 does not save a wrong SHA-256."""
    caller = Caller(World())
    caller.challenge()
    before = unsigned_allocate(caller)
    with_sha1 = caller_proof(before, (0x0008, sha1_integrity(before, caller.key)))
    answer = caller.send(caller_proof(with_sha1, (0x001C, bytes(32))))
    assert answer is not None
    assert error_code(answer) == 401


def unsigned_allocate(caller: Caller) -> bytes:
    proof = (a.Username(caller.username), a.Realm(caller.realm), a.Nonce(caller.nonce))
    return Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT, *proof)).encode()


def caller_proof(before: bytes, attribute: tuple[int, bytes]) -> bytes:
    """A message with one raw attribute more, lengths corrected."""
    data = before or Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT,)).encode()
    number, value = attribute
    data += number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
    return data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]


def test_a8_another_user_on_an_allocation_is_441() -> None:
    """Valid credentials of somebody else on the owner's 5-tuple get 441 and change nothing."""
    world = World()
    allocated(world)
    thief = Caller(world, CLIENT, "thief")
    assert thief.code(Method.REFRESH, a.Lifetime(0)) == 441
    assert thief.code(Method.CREATE_PERMISSION, a.XorPeerAddress(PEER)) == 441
    assert thief.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(PEER)) == 441
    allocation = world.server.allocations.of_client(CLIENT, SERVER)
    assert allocation is not None
    assert (allocation.permissions, allocation.channels, allocation.expires) == ({}, {}, 600.0)


def test_a9_unknown_user_and_wrong_password_look_alike() -> None:
    """Same code and same size, so that nobody learns which users exist."""
    world = World(users={"admin": Secret(b"long password")})
    sizes = set()
    for name, password in (
        ("admin", "guess"),
        ("nobody", "guess"),
        (f"{EXPIRES}:x", "guess"),
        ("1:old", "guess"),
    ):
        caller = Caller(world)
        caller.challenge()
        caller.username, caller.password = name, password
        raw = caller.send_raw(caller.signed(Method.ALLOCATE, TRANSPORT))
        assert raw is not None
        assert error_code(parse(raw).message) == 401
        sizes.add(len(raw))
    assert len(sizes) == 1


@pytest.mark.parametrize(
    "username",
    [
        f"{int(EPOCH) - 1}:user", "99999999999999:user", "-1:user", "+1:user", f"{EXPIRES}", f"{EXPIRES}:",
        f"{EXPIRES}:a:b", ":user", "１８００００００００:user", " 1900000000:user", "1e10:user",
        f"{EXPIRES}:user\n:",
    ],
)  # fmt: skip
def test_a12_bad_time_limited_names_are_401(username: str) -> None:
    """Expired, oversized, negative or misshapen names are refused even with the password that fits them."""
    caller = Caller(World())
    caller.challenge()
    caller.username = username
    caller.password = derived(username)
    assert error_code(caller.allocate()) == 401


def derived(username: str) -> str:
    """What a server without any check of the form would take as the password."""
    return base64.b64encode(hmac.digest(SECRET.reveal(), username.encode(), "sha1")).decode()


def test_a12_the_derivation_above_is_the_servers() -> None:
    """The control of the test before this one: with a good name that password is accepted."""
    caller = Caller(World())
    caller.username = f"{EXPIRES}:user"
    caller.password = derived(caller.username)
    assert error_code(caller.allocate()) == 0


def test_a12_credentials_are_not_issued_for_bad_names() -> None:
    """A colon in the user or an endless expiry is refused when credentials are made."""
    for user, expires in (("a:b", EXPIRES), ("", EXPIRES), ("user", 10**13), ("user", -1)):
        with pytest.raises(UsageError):
            issue_credentials(SECRET, user, expires)


def test_a12_expired_users_may_go_on_but_not_begin() -> None:
    """Expired credentials make no allocation, but keep one that lives: the hub still decides its peers."""
    world = World()
    caller = Caller(world)
    world.now = EXPIRES - EPOCH - 100
    assert error_code(caller.allocate()) == 0
    world.now += 200
    assert caller.code(Method.REFRESH) == 0
    assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert error_code(caller.allocate()) == 401

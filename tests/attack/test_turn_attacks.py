"""Attacks on STUN and TURN, named after the rows of the threat list: what is sent, and the right outcome."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import sys
import tracemalloc

import pytest

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.stun import attributes as a
from crowline.stun.budget import BINDING, CHALLENGE, SLOTS, ReplyBudget
from crowline.stun.integrity import fingerprint, sha1_integrity, sha256_integrity
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.stun.responder import Responder
from crowline.stun.sources import ANSWERING_PORTS, is_plausible_source
from crowline.turn.auth import NONCE_LIFETIME, issue_credentials
from crowline.turn.quota import Limits
from turn_pair import (
    CLIENT,
    EPOCH,
    EXPIRES,
    OTHER_CLIENT,
    OWN_ASIDE,
    PEER,
    RELAY_HOST,
    SECRET,
    SERVER,
    Caller,
    FakePorts,
    World,
    error_code,
)

TRANSPORT = a.RequestedTransport(17)
UNSIGNED = Message(Method.ALLOCATE, MessageClass.REQUEST, b"t" * 12, (TRANSPORT,)).encode()
WAYS = ["permission", "channel", "send"]


def allocated(world: World | None = None, address: Address = CLIENT, user: str = "mailbox") -> Caller:
    caller = Caller(world or World(), address, user)
    assert error_code(caller.allocate()) == 0
    return caller


def append(data: bytes, *attributes: a.AnyAttribute, with_fingerprint: bool = False) -> bytes:
    """Add attributes behind the integrity of a signed message, lengths corrected."""
    extra = Message(Method.BINDING, MessageClass.REQUEST, data[8:20], attributes).encode()[20:]
    body = data + extra
    body = body[:2] + (len(body) - 20).to_bytes(2, "big") + body[4:]
    if not with_fingerprint:
        return body
    body += b"\x80\x28\0\4" + fingerprint(body)
    return body[:2] + (len(body) - 20).to_bytes(2, "big") + body[4:]


def try_peer(caller: Caller, way: str, peer: Address) -> int:
    """The error code with which a peer is refused; for a Send indication 403 stands for silence."""
    if way == "permission":
        return caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(peer))
    if way == "channel":
        return caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(peer))
    indication = Message(
        Method.SEND, MessageClass.INDICATION, b"i" * 12, (a.XorPeerAddress(peer), a.Data(b"x"))
    )
    server = caller.world.server
    server.receive(indication.encode(), caller.address, caller.world.now, SERVER)
    return 403 if server.next_transmit() is None else 0


# --- S: the STUN server ---------------------------------------------------------------------------------


def test_s1_reflection_stays_within_the_budget() -> None:
    """A thousand Bindings a second from one source for ten seconds get the burst and the rate, no more."""
    budget = ReplyBudget(BINDING)
    answers = sum(budget.take(Address("44.6.6.6", port), port / 1000) for port in range(1, 10_001))
    assert answers <= BINDING.burst + BINDING.rate * 10


def test_s1_challenges_have_a_tight_budget_of_their_own() -> None:
    """A thousand unsigned Allocates a second for ten seconds get twenty answers, and ten more a second."""
    world = World()
    answers = 0
    for n in range(10_000):
        world.now = n / 1000
        caller = Caller(world, Address("44.6.6.6", 20_000 + n))
        answers += caller.send(UNSIGNED) is not None
    assert CHALLENGE.burst <= answers <= CHALLENGE.burst + CHALLENGE.rate * 10
    assert world.server.counters["over_budget"] == 10_000 - answers


def test_s1_neighbours_of_a_victim_are_answered() -> None:
    """The budget of one address, or of one /64, does not touch the next one."""
    budget = ReplyBudget(CHALLENGE)
    for source in (Address("44.6.6.6", 1), Address("2a01:4f8:1:1::6", 1)):
        while budget.take(source, 0.0):
            pass
    assert not budget.take(Address("2a01:4f8:1:1:ffff::1", 9), 0.0)
    neighbours = [Address(f"44.6.7.{n}", 1) for n in range(20)]
    neighbours += [Address(f"2a01:4f8:1:{n}::6", 1) for n in range(2, 20)]
    # Two sources may share a slot of the table; that nearly all share one would be the fault.
    assert sum(budget.take(neighbour, 0.0) for neighbour in neighbours) >= len(neighbours) - 2


def test_s1_one_site_of_many_clients_is_served() -> None:
    """A hundred clients behind one NAT that ask five times each, all at once, are all answered."""
    budget = ReplyBudget(BINDING)
    assert all(budget.take(Address("44.6.6.6", 1024 + n), n / 1000) for n in range(500))


def test_s1_the_budget_has_a_fixed_size() -> None:
    """A flood from a hundred thousand sources leaves the table as large as it was."""
    budget = ReplyBudget(CHALLENGE)
    before = sum(sys.getsizeof(value) for value in vars(budget).values())
    for n in range(100_000):
        budget.take(Address(str(ipaddress.IPv4Address(0x2C000000 + n)), 1), n / 10_000)
    assert sum(sys.getsizeof(value) for value in vars(budget).values()) == before
    assert before < 3 * 8 * SLOTS


@pytest.mark.parametrize(("client", "limit"), [(CLIENT, 32), (Address("2a01:4f8::5", 4000), 44)])
def test_s2_binding_amplification(client: Address, limit: int) -> None:
    """A bare Binding of 20 bytes gets at most 32 bytes over IPv4, 44 over IPv6."""
    responder = Responder()
    responder.receive(Message(Method.BINDING, MessageClass.REQUEST, b"t" * 12).encode(), client, 0.0, SERVER)
    transmit = responder.next_transmit()
    assert transmit is not None
    assert len(transmit.data) <= limit


@pytest.mark.parametrize(
    "method", [Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND]
)
@pytest.mark.parametrize("proof", ["none", "junk", "short"])
def test_s2_every_unauthenticated_answer_is_below_three_times(method: Method, proof: str) -> None:
    """No answer to an unauthenticated request is longer than three times that; a bare one gets none."""
    caller = Caller(World())
    request = Message(method, MessageClass.REQUEST, b"t" * 12)
    data = {
        "none": request.encode(),
        "junk": request.encode(key=b"junk"),
        "short": Message(method, MessageClass.REQUEST, b"t" * 12, (a.Username("u"),)).encode(key=b"junk"),
    }[proof]
    raw = caller.send_raw(data)
    assert (raw is None) == (proof == "none")
    assert raw is None or len(raw) <= 3 * len(data)
    assert caller.world.server.counters["too_small"] == (proof == "none")


def test_s3_answers_carry_no_decoration() -> None:
    """No SOFTWARE, no reason phrase, no plain MAPPED-ADDRESS in any answer."""
    caller = Caller(World())
    answers = [
        caller.send(UNSIGNED),
        caller.allocate(),
        caller.allocate(),
        caller.call(Method.REFRESH),
        caller.call(Method.CREATE_PERMISSION),
    ]
    for answer in answers:
        assert answer is not None
        assert answer.get(a.Software) is None
        assert answer.get(a.MappedAddress) is None
        error = answer.get(a.ErrorCode)
        assert error is None or error.reason == ""


@pytest.mark.parametrize("cls", [MessageClass.SUCCESS, MessageClass.ERROR, MessageClass.INDICATION])
@pytest.mark.parametrize("method", list(Method))
def test_s4_nothing_but_requests_is_answered(cls: MessageClass, method: Method) -> None:
    """Success, error and indication of every method meet silence, with and without an allocation."""
    for caller in (Caller(World()), allocated()):
        data = Message(method, cls, b"t" * 12, (a.ErrorCode(401), a.Realm("r"), a.Nonce("n"))).encode()
        assert caller.send_raw(data) is None
        responder = Responder()
        responder.receive(data, CLIENT, 0.0, SERVER)
        assert responder.next_transmit() is None


def test_s4_two_servers_set_on_each_other_fall_silent() -> None:
    """A forged 401 with the other server as its source is not answered, so no loop begins."""
    first, second = World(), World()
    forged = Message(Method.ALLOCATE, MessageClass.ERROR, b"t" * 12, (a.ErrorCode(401),)).encode()
    packets = 1
    for world in (first, second):
        world.server.receive(forged, Address("44.7.7.7", 3478), 0.0, SERVER)
        packets += world.server.next_transmit() is not None
    assert packets == 1


@pytest.mark.parametrize("method", [0x00A, 0x0FF, 0xFFF])
def test_s4_unknown_methods_meet_silence(method: int) -> None:
    """A request of a method that does not exist gets neither 401 nor 400."""
    woven = (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2
    data = woven.to_bytes(2, "big") + b"\0\0\x21\x12\xa4\x42" + b"t" * 12
    assert Caller(World()).send_raw(data) is None


@pytest.mark.parametrize(
    "source",
    [
        Address("0.0.0.0", 1000),
        Address("255.255.255.255", 1000),
        Address("224.0.0.1", 1000),
        Address("ff02::1", 1000),
        Address("::", 1000),
        *(Address("44.6.6.6", port) for port in sorted(ANSWERING_PORTS)),
    ],
)
def test_s7_impossible_and_answering_sources_meet_silence(source: Address) -> None:
    """Sources that no client has, and ports that would answer our answer, get nothing."""
    assert not is_plausible_source(source)
    assert Caller(World(), source).send_raw(UNSIGNED) is None


# --- A: authentication ----------------------------------------------------------------------------------


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


# --- P: peers -------------------------------------------------------------------------------------------

LOOPBACK = ["127.0.0.1", "127.255.255.254", "0.0.0.0"]
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192"]
PRIVATE = ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.1.1", "198.18.0.1"]
NEVER = ["224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1", "0.1.2.3", "192.88.99.1"]
IPV6_FORMS = [
    "::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "2002:7f00:1::", "2001:0:53aa:64c::1",
    "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2a01:4f8::5efe:127.0.0.1", "5f00::1", "3fff::1",
]  # fmt: skip
EVERYTHING = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", LOOPBACK + METADATA + PRIVATE + NEVER)
def test_p1_p2_p3_p4_closed_ipv4_peers_are_403(host: str, way: str) -> None:
    """Loopback, metadata, private, multicast, broadcast, reserved: 403, and silence for Send."""
    assert try_peer(allocated(), way, Address(host, 80)) == 403


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", IPV6_FORMS)
def test_p1_p2_p3_p4_p5_closed_ipv6_peers_are_403(host: str, way: str) -> None:
    """Every IPv6 spelling of them on an IPv6 allocation, Teredo and 6to4 among them."""
    ports = FakePorts()
    ports.families.add(a.FAMILY_IPV6)
    ports.free = [Address("2a01:4f8::1", 50_000)]
    caller = Caller(World(ports=ports))
    assert error_code(caller.allocate(a.RequestedAddressFamily(2))) == 0
    assert try_peer(caller, way, Address(str(ipaddress.ip_address(host)), 80)) == 403


@pytest.mark.parametrize("way", ["permission", "channel"])
@pytest.mark.parametrize("host", IPV6_FORMS)
def test_p_ipv6_peers_of_an_ipv4_allocation_are_443(host: str, way: str) -> None:
    """On an IPv4 allocation every IPv6 form is the wrong family, the mapped ones too."""
    assert try_peer(allocated(), way, Address(host, 80)) == 443


@pytest.mark.parametrize("way", ["permission", "channel"])
@pytest.mark.parametrize("host", LOOPBACK + METADATA + NEVER)
def test_p2_p4_no_wide_rule_opens_what_is_never(host: str, way: str) -> None:
    """With every range allowed, loopback, metadata, multicast and reserved addresses are still 403."""
    world = World(policy=AddressPolicy(EVERYTHING))
    assert try_peer(allocated(world), way, Address(host, 80)) == 403


@pytest.mark.parametrize("way", ["permission", "channel"])
def test_p3_a_named_range_opens_itself_only(way: str) -> None:
    """An allowed private range is relayed to, its neighbour is not."""
    world = World(policy=AddressPolicy([ipaddress.ip_network("192.168.1.0/24")]))
    caller = allocated(world)
    assert try_peer(caller, way, Address("192.168.2.1", 80)) == 403
    assert try_peer(caller, way, Address("192.168.1.1", 80)) == 0


@pytest.mark.parametrize("host", ["2001:0:53aa:64c::1", "2002:2c01:101::1"])
def test_p5_teredo_and_6to4_clients_are_refused(host: str) -> None:
    """RFC 8656 §21.4: no answer to clients that come by a tunnel."""
    assert Caller(World(), Address(host, 4000)).send_raw(UNSIGNED) is None


@pytest.mark.parametrize("way", WAYS)
def test_p6_own_sockets_are_out_of_reach(way: str) -> None:
    """The server's other addresses are 403; on its relay address only live relays are reached."""
    caller = allocated()
    assert try_peer(caller, way, Address(OWN_ASIDE, 9100)) == 403
    caller.code(Method.CREATE_PERMISSION, a.XorPeerAddress(Address(RELAY_HOST, 1)))
    assert try_peer(caller, "send", Address(RELAY_HOST, 8080)) == 403
    assert try_peer(caller, "channel", Address(RELAY_HOST, 8080)) == 403


def test_p6_relay_to_relay_is_allowed() -> None:
    """Another client's relayed address is a legitimate peer, whatever policy and hub say."""
    world = World(permits=lambda user, peer: False)
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    peer = world.ports.opened[1]
    assert first.code(Method.CREATE_PERMISSION, a.XorPeerAddress(peer)) == 0
    assert second.code(Method.CREATE_PERMISSION, a.XorPeerAddress(world.ports.opened[0])) == 0


def test_p9_a_withdrawn_peer_ends_with_its_permission() -> None:
    """When the hub no longer allows a peer, the permission cannot be renewed and traffic stops with it."""
    world = World()
    caller = allocated(world)
    assert try_peer(caller, "permission", PEER) == 0
    world.permits = lambda user, peer: False
    assert try_peer(caller, "permission", PEER) == 403
    world.now = 300.0
    assert try_peer(caller, "send", PEER) == 403


def test_p9_credentials_of_a_meeting_that_is_over_open_nothing_new() -> None:
    """Without its mailbox a user gets no allocation; one that carries a session goes on."""
    current = {"mailbox"}
    world = World(is_current=lambda user: user in current)
    caller = allocated(world)
    current.clear()
    assert error_code(Caller(world, OTHER_CLIENT, "mailbox").allocate()) == 401
    assert caller.code(Method.REFRESH, a.Lifetime(600)) == 0
    assert try_peer(caller, "permission", PEER) == 0


def test_p6_an_address_that_becomes_the_servers_own_is_not_sent_to() -> None:
    """A permission from before the machine got that address turns inward with its next refresh."""
    world = World()
    caller = allocated(world)
    assert try_peer(caller, "permission", PEER) == 0
    world.ports.relay_hosts.add(PEER.host)
    assert try_peer(caller, "permission", PEER) == 0
    assert try_peer(caller, "send", PEER) == 403


def test_p10_data_without_permission_is_dropped() -> None:
    """Send without permission and data from an unknown peer vanish without any answer."""
    caller = allocated()
    assert try_peer(caller, "send", PEER) == 403
    caller.world.server.receive_from_peer(b"x", PEER, 0.0, caller.world.ports.opened[0])
    assert caller.world.server.next_transmit() is None


def test_p13_relays_that_are_each_others_peers_do_not_loop() -> None:
    """A datagram between two relays reaches one client and stops there."""
    world = World()
    first, second = allocated(world), allocated(world, OTHER_CLIENT, "other")
    here, there = world.ports.opened
    first.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(there))
    second.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000), a.XorPeerAddress(here))
    world.server.receive(b"\x40\0\0\1x", CLIENT, 0.0, SERVER)
    assert world.server.next_transmit() is not None
    assert world.server.next_transmit() is None


# --- Q: resources ---------------------------------------------------------------------------------------


def test_q1_one_user_cannot_take_all() -> None:
    """The eleventh allocation of a user is 486, by whatever address; other users are served."""
    world = World()
    codes = [error_code(Caller(world, Address("44.2.2.2", 5000 + n)).allocate()) for n in range(15)]
    assert codes == [0] * 10 + [486] * 5
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 0


def test_q1_new_credentials_of_the_same_user_share_its_quota() -> None:
    """The quota goes by the user inside the name, so that fresh credentials bring no fresh quota."""
    world = World(limits=Limits(allocations_per_user=1))
    allocated(world)
    again = Caller(world, OTHER_CLIENT)
    again.username, again.password = issue_credentials(SECRET, "mailbox", EXPIRES + 1)
    assert error_code(again.allocate()) == 486


def test_q1_one_source_with_many_users_cannot_take_all() -> None:
    """Whoever has credentials made for many users has one share of the relays, for an IPv6 /64 too."""
    world = World(ports=FakePorts(100), limits=Limits(allocations_per_source=5))
    for prefix in ("44.2.2.2", "2001:db8::"):
        codes = []
        for n in range(8):
            address = Address(f"{prefix}{n:x}" if ":" in prefix else prefix, 5000 + n)
            codes.append(error_code(Caller(world, address, f"user-{n}").allocate()))
        assert codes == [0] * 5 + [486] * 3
    first = Caller(world, CLIENT, "user-0")
    assert first.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert error_code(Caller(world, Address("44.2.2.2", 7000), "late").allocate()) == 0
    assert error_code(Caller(world, OTHER_CLIENT, "other").allocate()) == 0


def test_q2_even_ports_leak_nothing() -> None:
    """EVEN-PORT in a loop of allocating and deleting leaves the pool as it was."""
    world = World(ports=FakePorts(4))
    caller = Caller(world)
    for _ in range(50):
        assert error_code(caller.allocate(a.EvenPort(False))) == 0
        assert caller.code(Method.REFRESH, a.Lifetime(0)) == 0
    assert len(world.ports.free) == 4


def test_q4_permissions_and_channels_are_capped() -> None:
    """Past 64 permissions and 32 channels there is 508, and what exists goes on."""
    caller = allocated()
    for n in range(32):
        peer = a.XorPeerAddress(Address(f"44.9.8.{n}", 1))
        assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4000 + n), peer) == 0
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4100), a.XorPeerAddress(PEER)) == 508
    codes = [try_peer(caller, "permission", Address(f"44.9.7.{n}", 1)) for n in range(100)]
    assert codes == [0] * 32 + [508] * 68
    assert try_peer(caller, "permission", Address("44.9.8.0", 1)) == 0
    caller.world.now = 301.0
    assert try_peer(caller, "permission", PEER) == 0


def test_q4_channels_count_as_permissions() -> None:
    """When the permissions are used up, a channel to a new address is 508, to a permitted one it is not."""
    caller = allocated()
    for n in range(64):
        assert try_peer(caller, "permission", Address(f"44.9.7.{n}", 1)) == 0
    assert try_peer(caller, "channel", PEER) == 508
    assert try_peer(caller, "channel", Address("44.9.7.1", 1)) == 0


def test_q5_refresh_storms_are_cheap() -> None:
    """Ten thousand refreshes, longer and shorter in turn, leave one alarm and not thousands."""
    caller = allocated()
    requests = [caller.signed(Method.REFRESH, a.Lifetime(seconds)) for seconds in (3600, 600, 1, 2**32 - 1)]
    for n in range(10_000):
        assert caller.send_raw(requests[n % 4]) is not None
    assert len(caller.world.server.allocations.alarms) <= 2


def test_q5_allocating_and_deleting_is_cheap() -> None:
    """A storm of short-lived allocations leaves no trail of alarms."""
    caller = Caller(World())
    for _ in range(2_000):
        caller.allocate()
        caller.code(Method.REFRESH, a.Lifetime(0))
    assert len(caller.world.server.allocations.alarms) < 300


def test_q6_channel_conflicts_are_400() -> None:
    """A number for a second peer, or a second number for a peer, is refused while the binding lives."""
    caller = allocated()
    assert try_peer(caller, "channel", PEER) == 0
    assert try_peer(caller, "channel", Address("44.9.9.8", 1)) == 400
    assert caller.code(Method.CHANNEL_BIND, a.ChannelNumber(0x4001), a.XorPeerAddress(PEER)) == 400


def test_q7_excess_is_dropped_and_neighbours_are_not() -> None:
    """A user that floods gets its rate and no more; another user loses nothing."""
    limits = Limits(bytes_per_second=1_000_000.0)
    world = World(limits=limits)
    flooder, neighbour = allocated(world), allocated(world, OTHER_CLIENT, "other")
    for caller in (flooder, neighbour):
        assert try_peer(caller, "channel", PEER) == 0
    packet = b"\x40\0\x04\x4c" + bytes(1100)
    passed = {CLIENT: 0, OTHER_CLIENT: 0}
    relayed = dict(zip(world.ports.opened, passed, strict=True))
    for n in range(10_000):
        now = n / 1000
        for _ in range(4):
            world.server.receive(packet, CLIENT, now, SERVER)
        if n % 10 == 0:
            world.server.receive(packet, OTHER_CLIENT, now, SERVER)
        while (transmit := world.server.next_transmit()) is not None:
            assert transmit.local is not None
            passed[relayed[transmit.local]] += len(transmit.data)
    assert passed[OTHER_CLIENT] == 1000 * 1100
    assert passed[CLIENT] <= 10 * limits.bytes_per_second + limits.burst
    assert passed[CLIENT] >= 9 * limits.bytes_per_second

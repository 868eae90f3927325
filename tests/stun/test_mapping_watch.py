"""Lifetimes of mappings by asking again, behind translators whose lifetimes are known, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import Lifetimes, NatBehaviour
from crowline.lab.presets import CARRIER, PRESETS, SYMMETRIC
from crowline.lab.profile import Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_site import build_site
from crowline.stun.attributes import ErrorCode, XorMappedAddress
from crowline.stun.binding_lifetime import WAITS, LifetimeFound
from crowline.stun.mapping_watch import BUSY, IDLE, MappingWatch
from crowline.stun.message import Message, MessageClass, Method
from crowline.stun.nat_discovery import BasesWanted
from crowline.stun.nat_findings import Reason
from nat_discoveries import SERVER, add_server

LONGEST = 600.0  # seconds
BUSY_TIME = sum(BUSY[0])


def watch(
    profile: Profile, silences: tuple[tuple[float, ...], ...], *, since_first: bool, loss: float = 0.0
) -> tuple[LifetimeFound, float, int]:
    """What is found, after how many seconds, and with how many packets."""
    internet = Internet(2, loss=loss)
    add_server(internet, alternates=False, ports=1)
    site = build_site(internet, profile, 7)
    machine = MappingWatch(SERVER, silences, since_first=since_first, entropy=internet.random.randbytes)
    assert machine.next_event() == BasesWanted(len(silences))
    node = internet.attach(machine)
    ports = internet.random.sample(range(20000, 60000), len(silences))
    sockets = tuple(Address(site.addresses[0], port) for port in ports)
    for socket in sockets:
        internet.bind(node, site.host, socket)
    sent = 0

    def count(*_: object) -> None:
        nonlocal sent
        sent += 1

    internet.observe = count
    machine.start(sockets, internet.now)
    internet.poke(node)
    assert internet.run(lambda: bool(node.events), limit=LONGEST)
    ((time, found),) = node.events
    assert isinstance(found, LifetimeFound)
    assert machine.next_timeout() is None
    return found, time, sent


@pytest.mark.parametrize("nat", [SYMMETRIC, CARRIER], ids=["symmetric", "carrier"])
@pytest.mark.parametrize("seconds", [30.0, 40.0, 60.0, 120.0, 300.0])
def test_an_idle_lifetime_is_found_between_two_silences(nat: NatBehaviour, seconds: float) -> None:
    """By any server, as long as ports are not kept."""
    box = replace(nat, lifetimes=Lifetimes(udp_idle=seconds))
    found, time, _ = watch(Profile("any", (box,)), IDLE, since_first=False)
    assert found.alive is not None
    assert found.dead is not None
    assert found.alive < seconds < found.dead
    assert (found.alive, found.dead) in list(pairwise(WAITS))
    assert time < found.dead + 3.0


@pytest.mark.parametrize("seconds", [60.0, 90.0, 300.0])
def test_a_mapping_that_ends_while_it_is_in_use_is_seen(seconds: float) -> None:
    """As mobile carriers do; the life counts from the first packet."""
    box = replace(SYMMETRIC, lifetimes=Lifetimes(udp_idle=40.0, absolute=seconds))
    found, _, _ = watch(Profile("any", (box,)), BUSY, since_first=True)
    assert found.alive is not None
    assert found.dead is not None
    assert found.alive <= seconds <= found.dead
    assert found.dead - found.alive <= 2 * BUSY[0][0]


def test_a_busy_mapping_that_lives_has_no_end() -> None:
    """As long as it was watched."""
    found, time, sent = watch(PRESETS["symmetric"], BUSY, since_first=True)
    assert found.alive == pytest.approx(BUSY_TIME, abs=1.0)
    assert found.dead is None
    assert time == pytest.approx(BUSY_TIME, abs=3.0)
    assert sent == 2 * (len(BUSY[0]) + 1)


@pytest.mark.parametrize("silences", [IDLE, BUSY], ids=["idle", "busy"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("home", Reason.KEPT_PORTS),
        ("public", Reason.NO_TRANSLATION),
        ("udp-blocked", Reason.NO_ANSWER),
    ],
)
def test_where_nothing_can_be_seen_nobody_waits_for_minutes(
    silences: tuple[tuple[float, ...], ...], name: str, reason: Reason
) -> None:
    """The reason is said at once."""
    found, time, _ = watch(PRESETS[name], silences, since_first=False)
    assert found == LifetimeFound(reason=reason)
    assert time < 2.0


def test_loss_ends_no_mapping() -> None:
    """Questions are repeated, and one without an answer says nothing."""
    found, _, _ = watch(PRESETS["mobile"], BUSY, since_first=True, loss=0.1)
    assert found.alive is not None
    assert found.dead is not None
    assert found.alive < 60.0 + BUSY[0][0]
    assert found.dead >= 60.0


def test_a_server_that_falls_silent_ends_the_watch() -> None:
    """What was seen before stays true."""
    machine = MappingWatch(SERVER, BUSY, since_first=True, entropy=lambda size: bytes(size))
    base = Address("192.168.7.10", 5001)
    machine.next_event()
    machine.start((base,), 0.0)
    now = 0.0
    for _ in range(3):
        transmit = machine.next_transmit()
        assert transmit is not None
        machine.receive(success(), SERVER, now, base)
        at = machine.next_timeout()
        assert at is not None
        now = at
        machine.handle_timeout(now)
    while (at := machine.next_timeout()) is not None:
        assert at < 60.0
        machine.handle_timeout(at)
    assert machine.next_event() == LifetimeFound(alive=10.0)


def success() -> bytes:
    """What a server says of the socket, with the transaction id of a machine without entropy."""
    request = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
    mapped = XorMappedAddress(Address("44.100.7.1", 777))
    return request.answer(MessageClass.SUCCESS, mapped).encode()


@pytest.mark.parametrize("what", ["another source", "another socket", "no STUN", "an error", "port 0"])
def test_strangers_change_nothing(what: str) -> None:
    """An answer counts if it comes from the server, to the socket that asked, with an address."""
    machine = MappingWatch(SERVER, BUSY, since_first=True, entropy=lambda size: bytes(size))
    base, data, source, local = Address("192.168.7.10", 5001), success(), SERVER, None
    machine.start((base,), 0.0)
    request = Message(Method.BINDING, MessageClass.REQUEST, bytes(12))
    if what == "another source":
        source = Address("44.9.9.9", 3478)
    elif what == "no STUN":
        data = b"\x00" * 30
    elif what == "an error":
        data = request.answer(MessageClass.ERROR, ErrorCode(500)).encode()
    elif what == "port 0":
        nowhere = XorMappedAddress(Address("44.100.7.1", 0))
        data = request.answer(MessageClass.SUCCESS, nowhere).encode()
    local = Address("192.168.7.10", 9) if what == "another socket" else base
    machine.receive(data, source, 0.01, local)
    assert sum(machine.counters.values()) == 1
    assert machine.next_timeout() == 0.25


def test_a_watch_needs_different_sockets_once() -> None:
    """Mistakes of the caller are said."""
    machine = MappingWatch(SERVER, IDLE, since_first=False, entropy=lambda size: bytes(size))
    base = Address("192.168.7.10", 5001)
    for bases in ((), (base, base)):
        with pytest.raises(UsageError):
            machine.start(bases, 0.0)
    machine.start((base,), 0.0)
    with pytest.raises(UsageError):
        machine.start((base,), 0.0)

"""The client of NAT-PMP and PCP against the laboratory's gateway, in virtual time."""

from __future__ import annotations

import itertools

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.profile import PortMapping
from crowline.portmap import pcp
from crowline.portmap.client import ANNOUNCED_SPREAD, PROBE_AGAIN
from crowline.portmap.events import (
    Dialect,
    GatewayFound,
    GatewaySilent,
    OutsideHost,
    PortClosed,
    PortLost,
    PortOpened,
    PortRefused,
    PortRenewed,
    Trouble,
)
from crowline.portmap.lease import Wanted
from crowline.portmap.pcp import PcpResult
from crowline.portmap.ports import LATER, MAX_PORTS, SOON
from gateway_pair import CLIENT, HOST, OUTSIDE, GatewayPair, only

UDP, TCP = 17, 6
PORT = 4000
KINDS = [PortMapping.PCP, PortMapping.NAT_PMP]
BOTH = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)


@BOTH
@pytest.mark.parametrize("protocol", [UDP, TCP])
def test_a_port_is_opened_and_strangers_come_in(kind: PortMapping, protocol: int) -> None:
    """The gateway's protocol is found, its address said, and what it opened leads to the inside port."""
    pair = GatewayPair(kind)
    number = pair.client.open(Wanted(protocol, PORT), pair.now)
    events = pair.run(1.0)
    dialect = Dialect.PCP if kind is PortMapping.PCP else Dialect.NAT_PMP
    assert only(events, GatewayFound).dialect is dialect is pair.client.dialect
    assert only(events, OutsideHost).host == OUTSIDE == pair.client.outside_host
    opened = only(events, PortOpened)
    assert (opened.number, opened.outside.host, opened.lifetime) == (number, OUTSIDE, 7200.0)
    assert pair.enters(opened.outside.port, protocol) == Address(HOST, PORT)


@BOTH
def test_a_gateway_without_loss_is_known_at_once(kind: PortMapping) -> None:
    """Neither protocol waits for a retransmission when the gateway answers."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    assert only(pair.run(0.01), PortOpened).outside.host == OUTSIDE


@BOTH
def test_a_suggested_port_is_given_where_it_is_free(kind: PortMapping) -> None:
    """The suggestion reaches the gateway."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT, 5000), pair.now)
    assert only(pair.run(), PortOpened).outside == Address(OUTSIDE, 5000)


@BOTH
def test_another_port_than_suggested_is_told(kind: PortMapping) -> None:
    """The port that counts is the gateway's, not the one that was asked for."""
    pair = GatewayPair(kind)
    assert pair.nat.forward(UDP, Address("192.168.1.99", 9), 9999, pair.now, suggested=5000)
    pair.client.open(Wanted(UDP, PORT, 5000), pair.now)
    opened = only(pair.run(), PortOpened)
    assert opened.outside.port != 5000
    assert pair.enters(opened.outside.port) == Address(HOST, PORT)


@BOTH
def test_no_other_port_is_kept_where_one_was_asked_for_exactly(kind: PortMapping) -> None:
    """Without that very port there is none, and nothing stays open by mistake."""
    pair = GatewayPair(kind)
    assert pair.nat.forward(UDP, Address("192.168.1.99", 9), 9999, pair.now, suggested=5000)
    number = pair.client.open(Wanted(UDP, PORT, 5000, exactly=True), pair.now)
    refused = only(pair.run(), PortRefused)
    assert refused.number == number
    assert refused.reason in (PcpResult.CANNOT_PROVIDE_EXTERNAL, Trouble.OTHER_PORT)
    assert all(pair.enters(port) != Address(HOST, PORT) for port in range(1024, 65536))


@BOTH
def test_a_port_is_renewed_at_half_of_its_lifetime(kind: PortMapping) -> None:
    """Between a half and five eighths, again and again, and the port stays the same."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    asked = len(pair.asked)
    assert pair.run(3590.0) == []
    assert len(pair.asked) == asked
    assert [type(event) for event in pair.run(920.0)] == [PortRenewed]
    events = pair.run(10 * 7200.0)
    assert {type(event) for event in events} == {PortRenewed}
    assert pair.enters(port) == Address(HOST, PORT)


@BOTH
def test_a_renewal_that_is_lost_is_tried_again_before_the_end(kind: PortMapping) -> None:
    """At half of what is left each time, not closer than 4 s (RFC 6887 §11.2.1), until the port is lost."""
    pair = GatewayPair(kind)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    start, pair.loses = pair.now, lambda data: True
    events = pair.run(7200.0)
    assert only(events, PortLost) == PortLost(number, Trouble.EXPIRED)
    times = [at - start for at, data in pair.asked if len(data) > 2 and start < at < start + 7199]
    assert len(times) >= 5
    assert all(later - earlier >= 4 for earlier, later in itertools.pairwise(times))
    pair.loses = lambda data: False
    assert only(pair.run(4000.0), PortOpened).number == number


@BOTH
def test_closing_a_port_closes_it_at_the_gateway(kind: PortMapping) -> None:
    """With lifetime 0, confirmed, and for good."""
    pair = GatewayPair(kind)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    pair.client.close_all(pair.now)
    assert pair.run() == [PortClosed(number, confirmed=True)]
    assert pair.client.is_idle
    assert pair.enters(port) is None
    assert pair.run(8000.0) == []


@BOTH
def test_closing_at_a_dead_gateway_ends_soon(kind: PortMapping) -> None:
    """A program that ends waits less than two seconds."""
    pair = GatewayPair(kind)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    pair.loses = lambda data: True
    pair.client.close(number, pair.now)
    assert pair.run(1.8) == [PortClosed(number, confirmed=False)]


def test_a_port_that_was_never_asked_for_is_closed_at_once() -> None:
    """The gateway is not told of what it does not know."""
    pair = GatewayPair(None)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.client.close(number, pair.now)
    assert pair.run() == [PortClosed(number, confirmed=True)]


@BOTH
def test_a_restarted_gateway_is_noticed_and_asked_anew(kind: PortMapping) -> None:
    """Its clock begins again: every port is lost, and opened again under the same number."""
    pair = GatewayPair(kind)
    numbers = [pair.client.open(Wanted(UDP, PORT + i), pair.now) for i in range(3)]
    before = {event.number: event.outside for event in pair.run() if isinstance(event, PortOpened)}
    pair.run(100.0)
    assert pair.service is not None
    pair.service.restart(pair.now)
    events = pair.run(4500.0)
    # The one whose renewal brought the news is simply open again.
    lost = {event.number for event in events if isinstance(event, PortLost)}
    assert len(lost) == 2
    assert {event.reason for event in events if isinstance(event, PortLost)} == {Trouble.RESTARTED}
    for number in numbers:
        assert pair.enters(before[number].port) == Address(HOST, PORT + number - 1)


@BOTH
def test_a_gateway_that_announces_its_restart_is_believed(kind: PortMapping) -> None:
    """Within the spread of RFC 6887 §14.1.3, long before the next renewal."""
    pair = GatewayPair(kind)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run(100.0)
    assert pair.service is not None
    pair.service.restart(pair.now)
    announcement = bytes((2, 128)) + bytes(22)
    if kind is PortMapping.NAT_PMP:
        announcement = bytes((0, 128, 0, 0, 0, 0, 0, 0, 203, 0, 113, 7))
    assert PortLost(number, Trouble.RESTARTED) in pair.answer(announcement)
    assert only(pair.run(ANNOUNCED_SPREAD), PortOpened).number == number


def test_a_gateway_of_both_kinds_that_announces_its_restart_by_pcp_is_asked() -> None:
    """Its clock says whether that is so; an announcement alone does not."""
    pair = GatewayPair(PortMapping.NAT_PMP)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run(100.0)
    assert pair.service is not None
    announcement = bytes((2, 128)) + bytes(22)
    pair.answer(announcement)
    assert not [event for event in pair.run(10.0) if isinstance(event, PortLost)]
    pair.service.restart(pair.now)
    before = len(pair.events)
    pair.answer(announcement)
    pair.run(ANNOUNCED_SPREAD + 1.0)
    assert PortLost(number, Trouble.RESTARTED) in pair.events[before:]
    assert only(pair.events[before:], PortOpened).number == number


@BOTH
def test_a_new_outside_address_is_told_with_the_next_renewal(kind: PortMapping) -> None:
    """The owner hears of the address, and of each port under it."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    assert pair.service is not None
    pair.nat.external_host = "203.0.113.99"
    pair.nat.unforward(UDP, Address(HOST, PORT))
    events = pair.run(4600.0)
    assert only(events, OutsideHost).host == "203.0.113.99"
    assert only(events, PortOpened).outside == Address("203.0.113.99", port)


@BOTH
def test_lost_datagrams_cost_a_quarter_of_a_second_each(kind: PortMapping) -> None:
    """Nobody waits the 3 s of RFC 6887 for a first answer."""
    pair = GatewayPair(kind)
    left = [1]

    def loses(data: bytes) -> bool:
        left[0] -= 1
        return left[0] >= 0

    pair.loses = loses
    pair.client.open(Wanted(UDP, PORT), pair.now)
    assert only(pair.run(0.3), PortOpened).outside.host == OUTSIDE


def test_a_silent_gateway_is_said_and_tried_again_later() -> None:
    """After 3.75 s, and again ten minutes later."""
    pair = GatewayPair(None)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    assert pair.run(3.7) == []
    assert pair.run(0.1) == [GatewaySilent(PROBE_AGAIN)]
    times = [at - 1000.0 for at, data in pair.asked if data[0] == 2]
    assert times == [0.0, 0.25, 0.75, 1.75]
    pair.service = GatewayPair(PortMapping.NAT_PMP).service
    assert only(pair.run(PROBE_AGAIN + 1), PortOpened).number == number


def test_nat_pmp_is_repeated_as_its_specification_says() -> None:
    """250 ms, doubling, nine times in all (RFC 6886 §3.1), then the gateway is looked for again."""
    pair = GatewayPair(PortMapping.NAT_PMP)
    pair.run()
    pair.loses = lambda data: True
    start = pair.now
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    events = pair.run(140.0)
    times = [at - start for at, data in pair.asked if at >= start and data[:2] == b"\0\1"]
    assert times == pytest.approx([0.25 * (2**i - 1) for i in range(9)])
    assert events[0] == PortRefused(number, Trouble.SILENT, 0.0)
    assert events[1:] == [GatewaySilent(PROBE_AGAIN)]


def test_pcp_that_is_no_more_falls_back_to_nat_pmp() -> None:
    """A box that was updated and speaks version 0 alone: the port is opened by that."""
    pair = GatewayPair(PortMapping.PCP)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    old = GatewayPair(PortMapping.NAT_PMP)
    pair.service, pair.nat = old.service, old.nat
    events = pair.run(4600.0)
    assert only(events, GatewayFound).dialect is Dialect.NAT_PMP
    assert only(events, PortLost).reason is Trouble.RESTARTED
    assert only(events, PortOpened).outside == Address(OUTSIDE, port)
    assert pair.enters(port) == Address(HOST, PORT)


def test_one_that_does_not_say_that_it_knows_no_pcp_is_found_all_the_same() -> None:
    """Some NAT-PMP boxes drop other versions: NAT-PMP goes beside PCP from the second try on."""
    pair = GatewayPair(PortMapping.NAT_PMP)
    pair.loses = lambda data: data[0] == 2 or data[:4] == b"\0\x80\0\1"
    pair.client.open(Wanted(UDP, PORT), pair.now)
    assert only(pair.run(0.3), PortOpened).outside.host == OUTSIDE


def test_a_refusal_says_why_and_when_it_is_asked_again() -> None:
    """The quota of the gateway, in words; the other ports stay."""
    pair = GatewayPair(PortMapping.PCP)
    for port in range(1, 65):
        data = pcp.map_request(HOST, bytes(12), UDP, port, pcp.any_outside(HOST), 7200)
        assert pair.service is not None
        pair.service.receive(data, CLIENT, pair.now)
        while pair.service.next_transmit() is not None:
            pass
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    refused = only(pair.run(), PortRefused)
    assert refused == PortRefused(number, PcpResult.USER_EX_QUOTA, SOON)
    assert refused.reason.words
    assert PortRefused(number, PcpResult.USER_EX_QUOTA, SOON) in pair.run(SOON + 1)


def test_what_another_program_holds_is_refused_by_its_nonce() -> None:
    """The same inside port under another nonce is not ours (RFC 6887 §11.3)."""
    pair = GatewayPair(PortMapping.PCP)
    data = pcp.map_request(HOST, bytes(12), UDP, PORT, pcp.any_outside(HOST), 7200)
    assert pair.service is not None
    pair.service.receive(data, CLIENT, pair.now)
    assert pair.service.next_transmit() is not None
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    assert PortRefused(number, PcpResult.NOT_AUTHORIZED, LATER) in pair.run()


def test_a_lifetime_as_short_as_it_may_be_is_kept_up() -> None:
    """NAT-PMP gives 10 s as asked: renewed in time for a minute, and never lost."""
    pair = GatewayPair(PortMapping.NAT_PMP, lifetime=10)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    assert {type(event) for event in pair.run(60.0)} == {PortRenewed}
    assert pair.enters(port) == Address(HOST, PORT)


def test_ports_for_other_hosts_are_refused_unless_they_are_allowed() -> None:
    """Without leave it is the caller's error; the laboratory's gateway refuses the option itself."""
    other = Wanted(UDP, PORT, third_party="192.168.1.77")
    with pytest.raises(UsageError):
        GatewayPair().client.open(other, 1000.0)
    pair = GatewayPair(PortMapping.PCP, allows_third_party=True)
    number = pair.client.open(other, pair.now)
    assert PortRefused(number, PcpResult.UNSUPP_OPTION, LATER) in pair.run()


def test_nat_pmp_cannot_open_ports_for_other_hosts() -> None:
    """Said as such; nothing is asked that would open a port of this host."""
    pair = GatewayPair(PortMapping.NAT_PMP, allows_third_party=True)
    number = pair.client.open(Wanted(UDP, PORT, third_party="192.168.1.77"), pair.now)
    assert PortRefused(number, Trouble.UNABLE, LATER) in pair.run()
    assert all(data[:2] != b"\0\1" for _, data in pair.asked)


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(UDP, 0),
        Wanted(UDP, 65536),
        Wanted(1, PORT),
        Wanted(UDP, PORT, -1),
        Wanted(UDP, PORT, 65536),
        Wanted(UDP, PORT, 0, exactly=True),
        Wanted(UDP, PORT, third_party="::1"),
        Wanted(UDP, PORT, third_party="host.example"),
    ],
)
def test_what_cannot_be_asked_is_the_callers_error(wanted: Wanted) -> None:
    """All ports at once, above all, are never asked for."""
    with pytest.raises(UsageError):
        GatewayPair(allows_third_party=True).client.open(wanted, 1000.0)


def test_a_port_is_asked_for_once_and_not_without_bound() -> None:
    """The same port twice, and one more than `MAX_PORTS`, are the caller's errors; so is a lifetime of 0."""
    client = GatewayPair().client
    for port in range(1, MAX_PORTS):
        client.open(Wanted(UDP, port), 1000.0)
    with pytest.raises(UsageError):
        client.open(Wanted(UDP, 1), 1000.0)
    client.open(Wanted(TCP, 1), 1000.0)
    with pytest.raises(UsageError):
        client.open(Wanted(TCP, 2), 1000.0)
    with pytest.raises(UsageError):
        GatewayPair(lifetime=0)


def test_a_denial_that_may_be_meant_for_nat_pmp_does_not_end_pcp() -> None:
    """Once both were asked for, a denial under version 2 says that version 2 is spoken (RFC 6887 §9)."""
    pair = GatewayPair(None)
    pair.run(0.3)
    assert pair.answer(bytes((2, 128, 0, 1)) + bytes(20)) == []
    pair.run(0.6)
    assert [data[0] for at, data in pair.asked if at > 1000.5] == [2, 0]
    assert only(pair.answer(bytes((2, 128)) + bytes(22)), GatewayFound).dialect is Dialect.PCP


def test_a_denial_of_pcp_alone_is_followed_by_nat_pmp_at_once() -> None:
    """Before anything else was asked the denial can mean nothing else."""
    pair = GatewayPair(None)
    pair.run(0.1)
    pair.answer(bytes((2, 128, 0, 1)) + bytes(20))
    assert [data for _, data in pair.asked[1:]] == [b"\0\0"]


@BOTH
def test_what_is_held_outlives_a_silence_of_the_gateway(kind: PortMapping) -> None:
    """The gateway is looked for again for the sake of another port; the one that is open is renewed."""
    pair = GatewayPair(kind)
    held = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    pair.loses = lambda data: True
    waiting = pair.client.open(Wanted(UDP, PORT + 1), pair.now)
    pair.run(2100.0)
    pair.loses = lambda data: False
    events = pair.run(1200.0)
    assert only(events, PortOpened).number == waiting
    assert PortRenewed(held, 7200.0) in events
    assert not any(isinstance(event, PortLost) for event in pair.events)


def test_what_is_being_closed_stays_so_when_the_protocol_changes() -> None:
    """A fall back to NAT-PMP opens again what is wanted, and nothing else."""
    pair = GatewayPair(PortMapping.PCP)
    going, staying = (pair.client.open(Wanted(UDP, PORT + i), pair.now) for i in range(2))
    pair.run()
    old = GatewayPair(PortMapping.NAT_PMP)
    pair.service, pair.nat = old.service, old.nat
    pair.client.close(going, pair.now)
    events = pair.run(5.0)
    assert only(events, PortClosed) == PortClosed(going, confirmed=True)
    assert only(events, PortOpened).number == staying


def test_what_nobody_waits_for_is_repeated_as_pcp_says() -> None:
    """3 s, doubling, each within a tenth (RFC 6887 §8.1.1), after the lease is lost."""
    pair = GatewayPair(PortMapping.PCP)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    pair.loses = lambda data: True
    pair.run(7200.0)
    lost = pair.now
    pair.run(60.0)
    times = [at for at, data in pair.asked if at > lost - 1 and data[1] == 1][:4]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 2.7 <= waits[0] <= 3.3
    assert all(1.8 <= later / earlier <= 2.2 for earlier, later in itertools.pairwise(waits))
    assert len(waits) == 3


def test_a_renewal_asks_for_what_is_held() -> None:
    """The nonce, the outside port and the outside address are those of the mapping (RFC 6887 §11.2.1)."""
    pair = GatewayPair(PortMapping.PCP)
    pair.client.open(Wanted(UDP, PORT, 5000), pair.now)
    pair.run(4600.0)
    first, renewal = [data for _, data in pair.asked if data[1] == 1]
    assert renewal[:44] == first[:44]
    assert renewal[44:].hex() == "00" * 10 + "ffff" + "cb007107"
    assert first[44:].hex() == "00" * 10 + "ffff" + "00000000"


@BOTH
def test_a_silent_gateway_that_announces_itself_is_looked_for_at_once(kind: PortMapping) -> None:
    """It was starting when it was looked for; its owner does not wait ten minutes more for the port."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.loses = lambda data: True
    assert only(pair.run(10.0), GatewaySilent)
    pair.loses = lambda data: False
    announcement = bytes.fromhex("0280000000000000 00000000" + "00" * 12)
    if kind is PortMapping.NAT_PMP:
        announcement = bytes.fromhex("00800000 00000000 cb007107")
    pair.answer(announcement)
    assert only(pair.run(10.0), PortOpened).outside.host == OUTSIDE


def test_announcements_of_a_gateway_that_answers_nothing_make_no_flood() -> None:
    """They can be made up: each costs at most one look, and there is one look at a time."""
    pair = GatewayPair(None)
    pair.run(10.0)
    before = len(pair.asked)
    for _ in range(1000):
        pair.answer(bytes.fromhex("00800000 00000000 cb007107"))
        pair.run(0.01)
    assert len(pair.asked) - before <= 40

"""Attacks on the client of NAT-PMP and PCP: strangers, liars and gateways out of order."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.lab.profile import PortMapping
from crowline.portmap import natpmp, pcp
from crowline.portmap.events import (
    Dialect,
    OutsideHost,
    PortLost,
    PortOpened,
    PortRefused,
    PortRenewed,
    Trouble,
)
from crowline.portmap.lease import MAX_LEASE, Wanted
from crowline.portmap.pcp import PcpResult
from crowline.portmap.ports import LATER, SOON
from gateway_pair import CLIENT, GATEWAY, HOST, GatewayPair, only

UDP = 17
PORT = 4000
BOTH = pytest.mark.parametrize("kind", [PortMapping.PCP, PortMapping.NAT_PMP], ids=lambda kind: kind.value)


def asking(kind: PortMapping) -> tuple[GatewayPair, bytes]:
    """A client that knows its gateway and waits for the answer to this request."""
    pair = GatewayPair(kind)
    pair.run()
    pair.client.open(Wanted(UDP, PORT, 5000), pair.now)
    (request,) = pair.sent()
    pair.service = None
    return pair, request


def nat_pmp_answer(port: int = 5000, lifetime: int = 7200, result: int = 0, epoch: int = 1000) -> bytes:
    head = bytes((0, 129)) + result.to_bytes(2, "big") + epoch.to_bytes(4, "big")
    return head + PORT.to_bytes(2, "big") + port.to_bytes(2, "big") + lifetime.to_bytes(4, "big")


def pcp_answer(
    request: bytes,
    port: int = 5000,
    lifetime: int = 7200,
    *,
    result: int = 0,
    host: str = "203.0.113.7",
    options: bytes = b"",
    epoch: int = 1000,
) -> bytes:
    head = bytes((2, 129, 0, result)) + lifetime.to_bytes(4, "big") + epoch.to_bytes(4, "big") + bytes(12)
    outside = bytes(10) + b"\xff\xff" + Address(host, 0).packed
    return head + request[24:42] + port.to_bytes(2, "big") + outside + options


def answer_to(request: bytes, port: int = 5000, lifetime: int = 7200, result: int = 0) -> bytes:
    if request[0] == 0:
        return nat_pmp_answer(port, lifetime, result)
    return pcp_answer(request, port, lifetime, result=result)


@BOTH
def test_m8_answers_count_from_the_gateways_own_port_alone(kind: PortMapping) -> None:
    """Another host, and another port of the gateway, are dropped; the gateway itself is believed."""
    pair, request = asking(kind)
    for source in (
        Address(GATEWAY.host, 5350),
        Address("192.168.1.66", 5351),
        Address("::ffff:192.168.1.1", 5351),
    ):
        assert pair.answer(answer_to(request), source) == []
    assert pair.client.counters["stranger"] == 3
    assert only(pair.answer(answer_to(request)), PortOpened).outside == Address("203.0.113.7", 5000)


def test_m8_an_answer_with_another_nonce_or_port_is_dropped() -> None:
    """PCP: the nonce is the proof that the answer is to us; its clock is not believed either."""
    pair, request = asking(PortMapping.PCP)
    right = pcp_answer(request)
    for at in (24, 35, 36, 41):  # the nonce, the protocol, the inside port
        wrong = bytearray(right)
        wrong[at] ^= 1
        wrong[8:12] = bytes(4)
        assert pair.answer(bytes(wrong)) == []
    assert pair.client.counters["mismatch"] == 4
    assert [type(event) for event in pair.answer(right)] == [PortOpened, OutsideHost]


def test_m8_nat_pmp_answers_that_nobody_asked_for_open_nothing() -> None:
    """Another port, another protocol, and after the port was opened the same again."""
    pair, _ = asking(PortMapping.NAT_PMP)
    right = nat_pmp_answer()
    for wrong in (right[:8] + b"\x0f\xa1" + right[10:], b"\0\x82" + right[2:]):
        assert pair.answer(wrong) == []
    assert [type(event) for event in pair.answer(right)] == [PortOpened]
    for again in (right, nat_pmp_answer(port=6000), nat_pmp_answer(result=2)):
        assert pair.answer(again) == []
    assert pair.client.counters["unsolicited"] == 5


@BOTH
def test_m8_answers_to_another_operation_or_version_are_dropped(kind: PortMapping) -> None:
    """Requests that come back, versions that nobody asked for, PEER for MAP."""
    pair, request = asking(kind)
    right = answer_to(request)
    version = right[0]
    for head in (bytes((version, 1)), b"\1\x81", b"\3\x81", bytes((version, 131)), bytes((2 - version, 129))):
        assert pair.answer(head + right[2:]) == []
    assert pair.client.dialect is (Dialect.PCP if kind is PortMapping.PCP else Dialect.NAT_PMP)
    assert only(pair.answer(right), PortOpened).outside.port == 5000


@BOTH
def test_m8_before_anything_was_asked_nothing_is_believed(kind: PortMapping) -> None:
    """A gateway that is left alone after its silence cannot be spoken for."""
    pair = GatewayPair(None)
    pair.run(10.0)
    announcement = (
        bytes((2, 128)) + bytes(22) if kind is PortMapping.PCP else bytes((0, 128, 0, 0)) + bytes(8)
    )
    assert pair.answer(announcement) == []
    assert pair.client.dialect is None
    assert pair.client.counters["unsolicited"] == 1


@BOTH
def test_m8_forged_restarts_do_not_make_a_flood(kind: PortMapping) -> None:
    """A thousand announcements of a restart in a second cost one request for each port, spread over time."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    asked = len(pair.asked)
    for epoch in range(1000):
        late = (epoch * 7919 % 1000).to_bytes(4, "big")
        if kind is PortMapping.PCP:
            pair.answer(bytes((2, 128, 0, 0)) + bytes(4) + late + bytes(12))
        else:
            pair.answer(bytes((0, 128, 0, 0)) + late + bytes((203, 0, 113, 7)))
        pair.run(0.001)
    pair.run(10.0)
    # NAT-PMP asks for the address too, PCP for the port alone; the true clock is another restart.
    assert len(pair.asked) - asked <= 8


def test_m8_a_denial_of_pcp_cannot_make_the_client_swing() -> None:
    """Version 0 and version 2 both denied, a thousand times: at most one change, and a bounded answer."""
    pair, request = asking(PortMapping.PCP)
    before = len(pair.asked)
    for _ in range(1000):
        pair.answer(b"\0\x80\0\1\0\0\0\0")
        pair.answer(pcp_answer(request, result=1))
    assert pair.client.dialect is Dialect.NAT_PMP
    assert len(pair.asked) - before <= 4


@pytest.mark.parametrize(
    "options",
    [
        "01000010" + "00" * 12,  # ends early
        "01000004" + "00" * 4,  # a third party of four bytes
        "02000004" + "00" * 4,  # PREFER_FAILURE with something in it
        "0200ffff",
        "02000000" * 2,
        "80000000" * 200,
        "".join(f"{code:02x}000000" for code in range(128, 137)),  # nine different ones
        "04000000",  # one that must be understood
        "01000010" + "00" * 10 + "ffffc0a8014d",  # a third party where none was asked for
    ],
)
def test_m9_an_answer_with_options_out_of_order_is_dropped(options: str) -> None:
    """Wrong sizes, too many, and a third party in an answer to us."""
    pair, request = asking(PortMapping.PCP)
    assert pair.answer(pcp_answer(request, options=bytes.fromhex(options))) == []
    assert pair.client.counters["malformed"] + pair.client.counters["mismatch"] == 1
    assert only(pair.answer(pcp_answer(request)), PortOpened).outside.port == 5000


def test_m9_a_third_party_is_the_one_that_was_asked_for() -> None:
    """Its answer names the same host, or it is not the answer."""
    pair = GatewayPair(PortMapping.PCP, allows_third_party=True)
    pair.run()
    pair.client.open(Wanted(UDP, PORT, third_party="192.168.1.77"), pair.now)
    (request,) = pair.sent()
    pair.service = None
    option = request[60:]
    assert pair.answer(pcp_answer(request)) == []
    assert pair.answer(pcp_answer(request, options=option[:-1] + b"\1")) == []
    assert only(pair.answer(pcp_answer(request, options=option)), PortOpened).outside.port == 5000


@BOTH
@pytest.mark.parametrize(
    ("port", "lifetime", "reason"),
    [(0, 7200, Trouble.OTHER_PORT), (5000, 0, Trouble.TOO_SHORT), (5000, 1, Trouble.TOO_SHORT)],
)
def test_m6_a_success_that_is_of_no_use_is_none(
    kind: PortMapping, port: int, lifetime: int, reason: Trouble
) -> None:
    """Port 0 and leases that are over at once: given back, and left alone for a while."""
    pair, request = asking(kind)
    refused = only(pair.answer(answer_to(request, port, lifetime)), PortRefused)
    assert (refused.reason, refused.retry_in) == (reason, LATER)
    asked = len(pair.asked)
    assert pair.run(LATER - 1) == []
    assert len(pair.asked) == asked


@BOTH
def test_m6_a_lease_for_ever_is_renewed_within_a_day(kind: PortMapping) -> None:
    """136 years are taken for a day, so that a gateway that forgets is noticed."""
    pair, request = asking(kind)
    opened = only(pair.answer(answer_to(request, lifetime=0xFFFFFFFF)), PortOpened)
    assert opened.lifetime == MAX_LEASE
    due = pair.client.next_timeout()
    assert due is not None
    assert due <= pair.now + MAX_LEASE * 5 / 8


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.169.254"])
def test_m6_an_outside_address_that_is_none_is_not_told(host: str) -> None:
    """Of PCP with a port, and of NAT-PMP alone."""
    pair, request = asking(PortMapping.PCP)
    assert only(pair.answer(pcp_answer(request, host=host)), PortRefused).reason is Trouble.NO_ADDRESS
    assert pair.client.outside_host is None
    pair, _ = asking(PortMapping.NAT_PMP)
    known = pair.client.outside_host
    assert pair.answer(bytes((0, 128, 0, 0, 0, 0, 4, 0)) + Address(host, 0).packed) == []
    assert pair.client.outside_host == known


@BOTH
def test_m6_a_refusal_for_a_century_is_asked_again_within_half_an_hour(kind: PortMapping) -> None:
    """Nor can a lifetime of 0 make the client ask at once, again and again."""
    for lifetime in (0, 0xFFFFFFFF):
        pair, request = asking(kind)
        refused = only(pair.answer(answer_to(request, lifetime=lifetime, result=2)), PortRefused)
        assert SOON <= refused.retry_in <= LATER


def test_m10_a_port_that_was_stolen_is_noticed_at_its_renewal() -> None:
    """Another program has it under its own nonce: said, and lost at the end of the lease."""
    pair = GatewayPair(PortMapping.PCP)
    number = pair.client.open(Wanted(UDP, PORT), pair.now)
    pair.run()
    assert pair.service is not None
    pair.service.restart(pair.now)
    thief = pcp.map_request(HOST, bytes(12), UDP, PORT, pcp.any_outside(HOST), 86400)
    pair.service.receive(thief, CLIENT, pair.now)
    assert pair.service.next_transmit() is not None
    events = pair.run(7200.0)
    assert only(events, PortLost).number == number
    assert any(isinstance(e, PortRefused) and e.reason is PcpResult.NOT_AUTHORIZED for e in events)


def test_m10_a_refused_renewal_leaves_the_port_until_its_end() -> None:
    """One answer of no does not close what is open: the owner is told, and the port is lost in its time."""
    pair, request = asking(PortMapping.PCP)
    number = only(pair.answer(pcp_answer(request)), PortOpened).number
    pair.run(4600.0)
    refused = pair.answer(pcp_answer(request, result=8, epoch=5600))
    assert [type(event) for event in refused] == [PortRefused]
    assert pair.run(2700.0)[0] == PortLost(number, Trouble.EXPIRED)


@BOTH
def test_m11_a_killed_program_leaves_nothing_open_for_long(kind: PortMapping) -> None:
    """Nothing is asked for longer than two hours."""
    pair = GatewayPair(kind)
    pair.client.open(Wanted(UDP, PORT), pair.now)
    port = only(pair.run(), PortOpened).outside.port
    pair.now += 7201.0
    assert pair.enters(port) is None


@BOTH
def test_any_answers_of_the_gateway_leave_the_client_working(kind: PortMapping) -> None:
    """Ten thousand damaged answers: no error, no flood, and the right answer counts after them."""
    chance = random.Random(6)
    pair, request = asking(kind)
    right = answer_to(request)
    events = 0
    for _ in range(10_000):
        data = bytearray(right)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        events += len(pair.answer(bytes(data[: chance.randrange(len(data) + 1)] or b"\0")))
    assert len(pair.asked) < 200
    pair.run(1.0)
    healthy = GatewayPair(kind)
    pair.service, pair.nat = healthy.service, healthy.nat
    seen = pair.run(8000.0)
    assert any(isinstance(event, PortOpened | PortRenewed) for event in seen)
    assert events < 200


def test_the_longest_answer_is_bounded() -> None:
    """A datagram of 64 KiB is not read."""
    pair, request = asking(PortMapping.PCP)
    assert pair.answer(pcp_answer(request, options=bytes(60_000))) == []
    assert pair.answer(bytes((0, 128)) + bytes(60_000)) == []
    assert pair.client.counters["malformed"] == 2
    assert natpmp.LONGEST == pcp.LONGEST == 1100

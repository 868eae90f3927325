"""The laboratory's NAT-PMP and PCP gateway, byte by byte as a client meets it."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.lab.behaviour import TCP, UDP
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_service import (
    LONG_FAILURE,
    LONGEST_LEASE,
    PORT,
    QUOTA,
    SHORT_FAILURE,
    SHORTEST_LEASE,
    PortMappingService,
)
from crowline.lab.presets import HOME, SYMMETRIC
from crowline.lab.profile import PortMapping

OUTSIDE = "203.0.113.7"
GATEWAY = Address("192.168.1.1", PORT)
CLIENT = Address("192.168.1.10", 50000)
OTHER = Address("192.168.1.11", 50000)
STRANGER = Address("198.51.100.9", 7)
NONCE = b"twelve bytes"
OTHER_NONCE = b"twelve other"
MAP, ANNOUNCE = 1, 0
PREFER_FAILURE = struct.pack("!BxH", 2, 0)


class Gateway:
    """A box with its service, and what a client does with it."""

    def __init__(self, kind: PortMapping = PortMapping.PCP, started: float = 0.0) -> None:
        self.nat = Nat(SYMMETRIC, OUTSIDE, random.Random(1).randbytes)
        self.service = PortMappingService(self.nat, kind, started)

    def ask(self, data: bytes, now: float = 0.0, client: Address = CLIENT) -> bytes | None:
        self.service.receive(data, client, now, GATEWAY)
        answer = self.service.next_transmit()
        assert self.service.next_transmit() is None
        if answer is None:
            return None
        assert (answer.destination, answer.local) == (client, GATEWAY)
        return bytes(answer.data)

    def enters(self, port: int, now: float, protocol: int = UDP) -> Address | None:
        """Where a stranger's packet to that outside port ends up."""
        return self.nat.inbound(protocol, Address(OUTSIDE, port), STRANGER, now)

    def pcp(self, request: bytes, now: float = 0.0, client: Address = CLIENT) -> tuple[int, int, int, bytes]:
        """Result, lifetime, epoch and what follows the header."""
        answer = self.ask(request, now, client)
        assert answer is not None
        assert len(answer) % 4 == 0
        version, operation, zero, result, lifetime, epoch = struct.unpack_from("!BBBBII", answer)
        assert (version, operation, zero, answer[12:24]) == (2, request[1] | 128, 0, bytes(12))
        return result, lifetime, epoch, answer[24:]


def mapped(host: str) -> bytes:
    return ipaddress.ip_address(f"::ffff:{host}").packed


def header(operation: int, lifetime: int = 0, client: Address = CLIENT, version: int = 2) -> bytes:
    return struct.pack("!BBHI", version, operation, 0, lifetime) + mapped(client.host)


def map_request(
    port: int = 4000,
    suggested: int = 0,
    lifetime: int = 3600,
    *,
    protocol: int = UDP,
    nonce: bytes = NONCE,
    client: Address = CLIENT,
    host: str = "0.0.0.0",
    options: bytes = b"",
) -> bytes:
    body = nonce + struct.pack("!B3xHH", protocol, port, suggested) + mapped(host)
    return header(MAP, lifetime, client) + body + options


def assigned(body: bytes) -> tuple[bytes, int, int, int, bytes]:
    """Nonce, protocol, inside port, outside port and outside host of a MAP answer."""
    nonce, protocol, inside, outside, host = struct.unpack_from("!12sB3xHH16s", body)
    return nonce, protocol, inside, outside, host


def nat_pmp(operation: int, inside: int, suggested: int, lifetime: int) -> bytes:
    return struct.pack("!BBHHHI", 0, operation, 0, inside, suggested, lifetime)


# --- NAT-PMP ----------------------------------------------------------------------------------------


def test_nat_pmp_tells_the_outside_address() -> None:
    """Twelve bytes: the result, the seconds since the start and the address."""
    answer = Gateway(started=10.0).ask(b"\0\0", 25.5)
    assert answer == struct.pack("!BBHI", 0, 128, 0, 15) + ipaddress.ip_address(OUTSIDE).packed


@pytest.mark.parametrize(("operation", "protocol"), [(1, UDP), (2, TCP)])
def test_nat_pmp_opens_a_port_for_everyone(operation: int, protocol: int) -> None:
    """The suggested port is granted, strangers get in until the lifetime is over, the other protocol not."""
    box = Gateway(PortMapping.NAT_PMP)
    answer = box.ask(nat_pmp(operation, 4000, 4001, 60), 5.0)
    assert answer == struct.pack("!BBHIHHI", 0, 128 + operation, 0, 5, 4000, 4001, 60)
    assert box.enters(4001, 64.9, protocol) == Address(CLIENT.host, 4000)
    assert box.enters(4001, 10.0, UDP + TCP - protocol) is None
    assert box.enters(4001, 65.0, protocol) is None


def test_nat_pmp_without_a_suggestion_keeps_the_inside_port_if_it_can() -> None:
    """A second host that wants the same port gets another one."""
    box = Gateway(PortMapping.NAT_PMP)
    first = box.ask(nat_pmp(1, 4000, 0, 60))
    second = box.ask(nat_pmp(1, 4000, 0, 60), client=OTHER)
    assert first is not None
    assert second is not None
    assert first[10:12] == struct.pack("!H", 4000) != second[10:12]
    assert box.enters(int.from_bytes(second[10:12], "big"), 1.0) == Address(OTHER.host, 4000)


def test_nat_pmp_renews_with_the_same_port() -> None:
    """Asking again prolongs, whatever is suggested this time."""
    box = Gateway(PortMapping.NAT_PMP)
    box.ask(nat_pmp(1, 4000, 4001, 60), 0.0)
    answer = box.ask(nat_pmp(1, 4000, 4777, 60), 50.0)
    assert answer is not None
    assert answer[8:] == struct.pack("!HHI", 4000, 4001, 60)
    assert box.enters(4001, 100.0) == Address(CLIENT.host, 4000)


def test_nat_pmp_closes_one_port_or_all_of_a_protocol() -> None:
    """Lifetime 0 closes a port; with port 0 all of this host and protocol; never another host's."""
    box = Gateway(PortMapping.NAT_PMP)
    for port in (4000, 4001, 4002):
        box.ask(nat_pmp(1, port, 0, 600))
    box.ask(nat_pmp(2, 4001, 0, 600))
    box.ask(nat_pmp(1, 5000, 0, 600), client=OTHER)
    answer = box.ask(nat_pmp(1, 4000, 0, 0), 7.0)
    assert answer == struct.pack("!BBHIHHI", 0, 129, 0, 7, 4000, 0, 0)
    assert [box.enters(port, 8.0) is None for port in (4000, 4001, 4002, 5000)] == [True, False, False, False]
    assert box.ask(nat_pmp(1, 0, 0, 0), 9.0) == struct.pack("!BBHIHHI", 0, 129, 0, 9, 0, 0, 0)
    assert [box.enters(port, 9.0) is None for port in (4001, 4002, 5000)] == [True, True, False]
    assert box.enters(4001, 9.0, TCP) == Address(CLIENT.host, 4001)


def test_closing_what_is_not_open_succeeds() -> None:
    """RFC 6886 §3.4: that is what the client wanted."""
    answer = Gateway(PortMapping.NAT_PMP).ask(nat_pmp(1, 4000, 0, 0))
    assert answer == struct.pack("!BBHIHHI", 0, 129, 0, 0, 4000, 0, 0)


def test_nat_pmp_says_no_to_what_it_does_not_know() -> None:
    """Result 5 to an unknown operation, 1 to another version where there is only NAT-PMP."""
    box = Gateway(PortMapping.NAT_PMP)
    assert box.ask(b"\0\x03", 2.0) == struct.pack("!BBHI", 0, 131, 5, 2)
    assert box.ask(map_request(), 2.0) == struct.pack("!BBHI", 0, 129, 1, 2)


def test_nat_pmp_refuses_when_nothing_is_left() -> None:
    """A host beyond its quota and a port 0 get result 4, with the request's ports."""
    box = Gateway(PortMapping.NAT_PMP)
    for port in range(4000, 4000 + QUOTA):
        box.ask(nat_pmp(1, port, 0, 600))
    refused = box.ask(nat_pmp(1, 3999, 17, 600))
    assert refused == struct.pack("!BBHIHHI", 0, 129, 4, 0, 3999, 17, 600)
    renewed = box.ask(nat_pmp(1, 4000, 0, 600))
    assert renewed is not None
    assert renewed[2:4] == b"\0\0"
    assert box.ask(nat_pmp(1, 0, 17, 600), client=OTHER) == struct.pack("!BBHIHHI", 0, 129, 4, 0, 0, 17, 600)
    later = box.ask(nat_pmp(1, 3999, 17, 600), 600.0)
    assert later is not None
    assert later[2:4] == b"\0\0"


# --- PCP --------------------------------------------------------------------------------------------


def test_pcp_map_opens_a_port_for_everyone() -> None:
    """The answer repeats nonce, protocol and port and adds the outside address and the granted lifetime."""
    box = Gateway(started=100.0)
    result, lifetime, epoch, body = box.pcp(map_request(4000, 4001, 3600), 103.0)
    assert (result, lifetime, epoch) == (0, 3600, 3)
    assert assigned(body) == (NONCE, UDP, 4000, 4001, mapped(OUTSIDE))
    assert box.enters(4001, 103.0 + 3599.0) == Address(CLIENT.host, 4000)
    assert box.enters(4001, 103.0 + 3600.0) is None


def test_pcp_bounds_lifetimes() -> None:
    """Too short becomes two minutes, too long becomes a day (RFC 6887 §15)."""
    assert Gateway().pcp(map_request(lifetime=1))[1] == SHORTEST_LEASE
    assert Gateway().pcp(map_request(lifetime=2**32 - 1))[1] == LONGEST_LEASE


def test_pcp_renews_with_its_nonce_only() -> None:
    """The same nonce prolongs with the same port, another one is not authorised to prolong or to close."""
    box = Gateway()
    box.pcp(map_request(4000, 4001, 200), 0.0)
    assert box.pcp(map_request(4000, 4001, 200, nonce=OTHER_NONCE), 1.0)[:2] == (2, LONG_FAILURE)
    assert box.pcp(map_request(4000, 4001, 0, nonce=OTHER_NONCE), 1.0)[0] == 2
    result, _, _, body = box.pcp(map_request(4000, 5555, 200), 100.0)
    assert (result, assigned(body)[3]) == (0, 4001)
    assert box.enters(4001, 299.0) is not None
    assert box.pcp(map_request(4000, 4001, 200, nonce=OTHER_NONCE), 300.0)[0] == 0


def test_pcp_closes_with_lifetime_0() -> None:
    """Success with lifetime 0 and nobody gets in; closing again succeeds as well."""
    box = Gateway()
    box.pcp(map_request(4000, 4001))
    for _ in range(2):
        result, lifetime, _, body = box.pcp(map_request(4000, 4001, 0))
        assert (result, lifetime, assigned(body)[2]) == (0, 0, 4000)
        assert box.enters(4001, 1.0) is None


def test_pcp_announce_is_answered_with_the_epoch() -> None:
    """A header, and nothing else."""
    assert Gateway().pcp(header(ANNOUNCE), 77.7) == (0, 0, 77, b"")


def test_pcp_refuses_a_client_that_believes_to_be_somebody_else() -> None:
    """There is a translator between client and gateway, or a forger."""
    assert Gateway().pcp(map_request(client=OTHER))[0] == 12
    assert Gateway().pcp(header(ANNOUNCE, client=OTHER))[0] == 12


def test_pcp_answers_other_versions_with_its_own() -> None:
    """Result 1, version 2: the client may try again."""
    assert Gateway().pcp(header(MAP, version=3))[:2] == (1, LONG_FAILURE)
    assert Gateway().pcp(b"\x03\x01")[0] == 1


def test_a_pcp_gateway_knows_nat_pmp_too() -> None:
    """Version 0 gets an answer of version 0."""
    assert Gateway().ask(nat_pmp(1, 4000, 4001, 60)) == struct.pack("!BBHIHHI", 0, 129, 0, 0, 4000, 4001, 60)


def test_nat_pmp_does_not_close_what_pcp_opened() -> None:
    """It has no nonce to show: result 2, and the port stays open, as it does when all are to be closed."""
    box = Gateway()
    box.pcp(map_request(4000, 4001))
    assert box.ask(nat_pmp(1, 4000, 0, 0)) == struct.pack("!BBHI", 0, 129, 2, 0)
    box.ask(nat_pmp(1, 0, 0, 0))
    assert box.enters(4001, 1.0) is not None
    box.ask(nat_pmp(1, 4000, 0, 60))
    assert box.pcp(map_request(4000, nonce=OTHER_NONCE))[0] == 2


REFUSED = {
    "unknown operation": (header(7, 0), 4),
    "truncated header": (header(MAP)[:20], 3),
    "odd length": (map_request() + b"\0", 3),
    "truncated body": (map_request()[:40], 3),
    "too long": (map_request() + bytes(1100), 3),
    "port without protocol": (map_request(protocol=0), 3),
    "all protocols": (map_request(0, protocol=0), 9),
    "all ports": (map_request(0), 9),
    "protocol without ports": (map_request(protocol=132), 9),
    "third party": (map_request(options=struct.pack("!BxH", 1, 16) + mapped(OTHER.host)), 5),
    "filter": (map_request(options=struct.pack("!BxH", 3, 20) + bytes(20)), 5),
    "option beyond the end": (map_request(options=struct.pack("!BxH", 2, 4)), 6),
    "option with a body that it cannot have": (map_request(options=struct.pack("!BxHI", 2, 4, 0)), 6),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pcp_refuses_with_the_result_that_fits(case: str) -> None:
    """The answer repeats what followed the request's header, and nothing is opened."""
    request, expected = REFUSED[case]
    box = Gateway()
    result, lifetime, _, body = box.pcp(request)
    assert (result, lifetime) == (expected, LONG_FAILURE)
    assert body[: len(request) - 24] == request[24:1100]
    assert len(box.nat) == 0


def test_pcp_passes_over_options_that_need_not_be_known() -> None:
    """Codes from 128 on are optional, whatever is in them."""
    assert Gateway().pcp(map_request(options=struct.pack("!BxH5s3x", 200, 5, b"hello")))[0] == 0


def test_prefer_failure_gives_the_suggested_port_or_none() -> None:
    """A taken port, another host and another port of an open mapping are refused, for a while."""
    box = Gateway()
    granted = box.pcp(map_request(4000, 4001, options=PREFER_FAILURE))
    assert (granted[0], assigned(granted[3])[3], granted[3][36:]) == (0, 4001, PREFER_FAILURE)
    for request, client in (
        (map_request(4000, 4001, client=OTHER, options=PREFER_FAILURE), OTHER),
        (map_request(4002, 4002, host="203.0.113.99", options=PREFER_FAILURE), CLIENT),
        (map_request(4000, 4003, options=PREFER_FAILURE), CLIENT),
    ):
        assert box.pcp(request, client=client)[:2] == (11, SHORT_FAILURE)
    assert len(box.nat) == 1
    assert box.pcp(map_request(4005, 4005, host=OUTSIDE, options=PREFER_FAILURE))[0] == 0


def test_a_host_has_a_quota() -> None:
    """One more than allowed is refused for a while; another host is not concerned."""
    box = Gateway()
    results = [box.pcp(map_request(port))[:2] for port in range(4000, 4001 + QUOTA)]
    assert {result for result, _ in results[:-1]} == {0}
    assert results[-1] == (10, SHORT_FAILURE)
    assert box.pcp(map_request(client=OTHER), client=OTHER)[0] == 0


def test_pcp_says_when_the_box_has_no_port_left() -> None:
    """Result 8 where the table is full."""
    box = Gateway()
    box.nat = Nat(SYMMETRIC, OUTSIDE, random.Random(1).randbytes)
    small = Nat(HOME.__class__(HOME.mapping, HOME.filtering, HOME.allocation, table_size=1), OUTSIDE, bytes)
    box.service = PortMappingService(small, PortMapping.PCP)
    assert box.pcp(map_request(4000))[0] == 0
    assert box.pcp(map_request(4001))[:2] == (8, SHORT_FAILURE)


# --- both -------------------------------------------------------------------------------------------


def test_a_restart_loses_every_port_and_starts_counting_again() -> None:
    """What was open is closed, and the epoch is lower than a client expects."""
    box = Gateway()
    box.pcp(map_request(4000, 4001), 0.0)
    box.service.restart(500.0)
    assert box.enters(4001, 501.0) is None
    assert box.pcp(header(ANNOUNCE), 510.0)[2] == 10
    assert box.pcp(map_request(4000, 4001, nonce=OTHER_NONCE), 511.0)[0] == 0


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x81", b"\x02\x81" + bytes(58), nat_pmp(1, 1, 1, 1)[:11]])
def test_what_is_no_request_is_not_answered(data: bytes) -> None:
    """Runts and answers are counted and dropped: two gateways never talk to each other."""
    box = Gateway()
    assert box.ask(data) is None
    assert box.service.counters == {"malformed": 1}


def test_upnp_is_somebody_elses_work() -> None:
    """The service refuses a kind that it does not speak."""
    with pytest.raises(UsageError):
        PortMappingService(Nat(HOME, OUTSIDE, bytes), PortMapping.UPNP)


@given(data=st.binary(max_size=1200), kind=st.sampled_from([PortMapping.NAT_PMP, PortMapping.PCP]))
def test_no_bytes_upset_the_gateway(data: bytes, kind: PortMapping) -> None:
    """Whatever is sent, there is at most one answer, no longer than 1,100 bytes, and it is an answer."""
    box = Gateway(kind)
    box.service.receive(data, CLIENT, 1.0, GATEWAY)
    answer = box.service.next_transmit()
    assert isinstance(answer, Transmit | None)
    if answer is not None:
        assert len(answer.data) <= 1100
        assert bytes(answer.data)[1] & 128
    assert box.service.next_transmit() is None

"""NAT-PMP and PCP byte by byte: seen answers of real gateways, a second codec, and arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab import port_mapping_messages as lab
from crowline.portmap import natpmp, pcp
from crowline.portmap.natpmp import AddressAnswer, MalformedNatPmp, MapAnswer, NatPmpResult, OtherAnswer
from crowline.portmap.pcp import MalformedPcp, Mapped, PcpAnswer, PcpResult

NONCE = b"twelve bytes"
HOST = "192.168.1.10"
ANY = Address("0.0.0.0", 0)
PEER = Address("198.51.100.9", 443)
PORTS = st.integers(1, 0xFFFF)


def response(
    operation: int = 1, result: int = 0, lifetime: int = 120, epoch: int = 5, body: bytes = b""
) -> bytes:
    return (
        bytes((2, 128 | operation, 0, result))
        + lifetime.to_bytes(4, "big")
        + epoch.to_bytes(4, "big")
        + bytes(12)
        + body
    )


def map_body(host: bytes = b"\xff\xff\xcb\0\x71\x07") -> bytes:
    return NONCE + bytes((17, 0, 0, 0)) + b"\x0f\xa0\x13\x88" + host.rjust(16, b"\0")


def test_the_answers_of_a_real_nat_pmp_gateway_are_read() -> None:
    """As miniupnpd sends them."""
    address = natpmp.parse(bytes.fromhex("00800000000009b72c010203"))
    assert address == AddressAnswer(NatPmpResult.SUCCESS, 0x9B7, "44.1.2.3")
    mapped = natpmp.parse(bytes.fromhex("00810000000009b7177017700000003c"))
    assert mapped == MapAnswer(NatPmpResult.SUCCESS, 0x9B7, 17, 6000, 6000, 60)


def test_nat_pmp_requests_are_what_the_specification_draws() -> None:
    """RFC 6886 §3.2 and §3.3."""
    assert natpmp.address_request() == b"\0\0"
    assert natpmp.map_request(17, 4000, 5000, 7200).hex() == "000100000fa0138800001c20"
    assert natpmp.map_request(6, 4000, 0, 0).hex() == "000200000fa0000000000000"


@given(st.sampled_from([6, 17]), PORTS, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_the_laboratory_reads_nat_pmp_requests_and_we_its_answers(
    protocol: int, inside: int, outside: int, lifetime: int
) -> None:
    """Two codecs that share no line agree."""
    data = natpmp.map_request(protocol, inside, outside, lifetime)
    request = lab.parse_nat_pmp(data)
    assert request == lab.MapRequest(protocol, inside, outside, lifetime)
    assert isinstance(request, lab.MapRequest)
    answer = natpmp.parse(lab.nat_pmp_mapped(request, outside, lifetime, 9))
    assert answer == MapAnswer(NatPmpResult.SUCCESS, 9, protocol, inside, outside, lifetime)


@pytest.mark.parametrize("data", ["0081000200000001", "008100020000000117", "00810002000000010fa0"])
def test_nat_pmp_failures_may_be_short(data: str) -> None:
    """What stands behind the epoch is read as far as it is there."""
    answer = natpmp.parse(bytes.fromhex(data))
    port = 4000 if len(data) == 20 else None
    assert answer == MapAnswer(NatPmpResult.NOT_AUTHORIZED, 1, 17, port, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "0080",
        "0000000000000000",  # a request
        "0280000000000001",  # another version
        "0080000000000001",  # a success without the address
        "00810000000000010fa01388",  # a success without the lifetime
        "00800000000000012c010203" + "00" * 1100,
    ],
)
def test_what_is_no_answer_of_nat_pmp_is_malformed(data: str) -> None:
    """It raises, and is not taken for something else."""
    with pytest.raises(MalformedNatPmp):
        natpmp.parse(bytes.fromhex(data))


def test_results_that_nobody_knows_are_failures() -> None:
    """They have words too."""
    assert natpmp.parse(bytes.fromhex("0085005500000001")) == OtherAnswer(NatPmpResult.UNKNOWN, 1)
    assert pcp.parse(response(0, 77)).result is PcpResult.UNKNOWN
    assert all(result.words for result in [*NatPmpResult, *PcpResult])


def test_pcp_map_requests_are_what_the_specification_draws() -> None:
    """RFC 6887 §7.1 and §11.1, an IPv4 address in IPv6's form, PREFER_FAILURE and THIRD_PARTY."""
    data = pcp.map_request(
        HOST, NONCE, 17, 4000, Address("0.0.0.0", 5000), 7200, prefer_failure=True, third_party="192.168.1.77"
    )
    client, other = "00" * 10 + "ffffc0a8010a", "00" * 10 + "ffffc0a8014d"
    assert data.hex() == (
        "02010000" + "00001c20" + client + NONCE.hex() + "11000000" + "0fa01388" + "00" * 10 + "ffff00000000"
        + "01000010" + other + "02000000"
    )  # fmt: skip
    closing = pcp.map_request(HOST, NONCE, 17, 4000, ANY, 0, prefer_failure=True)
    assert len(closing) == 60


def test_pcp_announce_and_peer_requests_are_what_the_specification_draws() -> None:
    """RFC 6887 §14.1 and §12.1; IPv6 as it is."""
    assert pcp.announce_request("2001:db8::1").hex() == "0200000000000000" + "20010db8" + "00" * 11 + "01"
    data = pcp.peer_request(HOST, NONCE, 6, 4000, ANY, PEER, 300)
    assert data[1] == 2
    assert len(data) == 80
    assert data[60:].hex() == "01bb0000" + "00" * 10 + "ffffc6336409"
    assert len(pcp.peer_request(HOST, NONCE, 6, 4000, ANY, PEER, 300, third_party=HOST)) == 100
    assert pcp.any_outside("2001:db8::1") == Address("::", 0)


@given(st.sampled_from([6, 17]), PORTS, st.integers(0, 0xFFFF), st.booleans())
def test_the_laboratory_reads_pcp_requests_and_we_its_answers(
    protocol: int, inside: int, outside: int, prefer_failure: bool
) -> None:
    """Two codecs that share no line agree."""
    suggested = Address("203.0.113.7", outside)
    data = pcp.map_request(HOST, NONCE, protocol, inside, suggested, 600, prefer_failure=prefer_failure)
    assert lab.parse_pcp(data) == lab.PcpHeader(1, 600, HOST)
    request = lab.parse_pcp_map(data)
    options = frozenset({2} if prefer_failure else set())
    assert request == lab.PcpMap(NONCE, protocol, inside, outside, "203.0.113.7", options)
    body = lab.pcp_mapped(request, "203.0.113.7", outside)
    answer = pcp.parse(lab.pcp_response(data, lab.PcpResult.SUCCESS, 600, 9, body=body))
    assert answer == PcpAnswer(1, PcpResult.SUCCESS, 600, 9, Mapped(NONCE, protocol, inside, suggested), None)


def test_pcp_answers_are_read() -> None:
    """MAP with a third party and an option that may be ignored, PEER, ANNOUNCE, and a bare failure."""
    options = bytes.fromhex("01000010" + "00" * 10 + "ffffc0a8014d" + "80000001" + "ff000000")
    answer = pcp.parse(response(body=map_body() + options))
    outside = Address("203.0.113.7", 5000)
    assert answer.mapped == Mapped(NONCE, 17, 4000, outside)
    assert answer.third_party == "192.168.1.77"
    remote = b"\x01\xbb\0\0" + bytes(10) + b"\xff\xff\xc6\x33\x64\x09"
    assert pcp.parse(response(2, body=map_body() + remote)).mapped == Mapped(NONCE, 17, 4000, outside, PEER)
    assert pcp.parse(response(0)) == PcpAnswer(0, PcpResult.SUCCESS, 120, 5, None, None)
    assert pcp.parse(response(1, 1)).mapped is None
    ipv6 = bytes.fromhex("20010db8000000000000000000000001")
    mapped = pcp.parse(response(body=map_body(ipv6))).mapped
    assert mapped is not None
    assert mapped.outside == Address("2001:db8::1", 5000)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        response()[:20],
        response(0) + b"\0",
        response(0) + bytes(1100),
        b"\2\1" + response()[2:],  # a request
        b"\3" + response()[1:],
        response(),  # a success that does not say of what
        response(2, body=map_body()),
    ],
)
def test_what_is_no_answer_of_pcp_is_malformed(data: bytes) -> None:
    """It raises, and is not taken for something else."""
    with pytest.raises(MalformedPcp):
        pcp.parse(data)


@given(st.binary(max_size=120), st.sampled_from([0, 1, 2]), st.integers(0, 20))
def test_any_bytes_are_an_answer_or_malformed(body: bytes, operation: int, result: int) -> None:
    """Nothing else comes out of either parser."""
    datagrams = [response(operation, result, body=body), bytes((0, 128 | operation, 0, result)) + body, body]
    for data in datagrams:
        for parse, malformed in ((natpmp.parse, MalformedNatPmp), (pcp.parse, MalformedPcp)):
            try:
                answer = parse(data)
            except malformed:
                continue
            assert answer.result in [*NatPmpResult, *PcpResult]


def test_what_would_open_every_port_is_never_asked() -> None:
    """Port 0 and protocol 0 mean all of them; a nonce of another size is no nonce."""
    for protocol, port in ((17, 0), (17, 65536), (1, 4000)):
        with pytest.raises(UsageError):
            natpmp.map_request(protocol, port, 0, 60)
    for nonce, protocol, port in ((NONCE, 0, 4000), (NONCE, 17, 0), (b"short", 17, 4000)):
        with pytest.raises(UsageError):
            pcp.map_request(HOST, nonce, protocol, port, ANY, 60)

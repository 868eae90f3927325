"""Lines of session descriptions: what is read, what is refused, and that both ways lead to the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.addresses import Address
from crowline.base.errors import MalformedMessage, UsageError
from crowline.ice.attribute_line import (
    EndOfCandidates,
    IceLite,
    IceOptions,
    IcePwd,
    IceUfrag,
    read_attribute,
)
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType, TcpType
from crowline.ice.candidate_line import MAX_LINE, MAX_PRIORITY, CandidateLine, MalformedIceLine

HOST = "1 1 udp 2130706431 192.0.2.2 35570 typ host"
BASE = Address("192.0.2.2", 35570)

AIOICE = [
    "f957a2332b1715da3b0ef8ba684454eb 1 udp 2130706431 192.0.2.2 35570 typ host",
    "d0bcf3d9c29a2bc887618212a1623bfa 1 udp 2130706431 fd00::2 37240 typ host",
    "6815297761 1 udp 659136 1.2.3.4 31102 typ relay raddr 192.0.2.2 rport 35570 generation 0",
]
CHROMIUM = [
    "candidate:2014641809 1 udp 2113937151 e42e2ffc-204b-480d-b93b-a3de034a57cc.local 56230 typ host"
    " generation 0 ufrag BECE network-cost 999",
    "candidate:1140883556 1 udp 2113937151 192.0.2.2 49046 typ host generation 0 ufrag 0mrN network-cost 999",
    "candidate:2405843332 1 udp 2113942271 fd00::2 46038 typ host generation 0 ufrag 0mrN network-cost 999",
]
LIBNICE = [
    "a=candidate:1 1 UDP 2015363327 192.0.2.2 51149 typ host",
    "a=candidate:2 1 TCP 1015021823 192.0.2.2 9 typ host tcptype active",
    "a=candidate:3 1 TCP 1010827519 192.0.2.2 42475 typ host tcptype passive",
    "a=candidate:4 1 UDP 2015363583 fd00::2 51831 typ host",
    "a=candidate:7 1 UDP 2015363839 fe80::fc:ff:fe00:1 59162 typ host",
    "a=candidate:9 1 TCP 1010828031 fe80::fc:ff:fe00:1 48651 typ host tcptype passive",
]


@pytest.mark.parametrize("text", AIOICE + CHROMIUM + LIBNICE)
def test_lines_of_other_agents_are_read_and_written_alike(text: str) -> None:
    """Real lines say the same after a round trip, but for the prefix and the case of the transport."""
    bare = text.removeprefix("a=").removeprefix("candidate:")
    written = CandidateLine.parse(text).write()
    assert written == "candidate:" + bare.replace(" UDP ", " udp ").replace(" TCP ", " tcp ")
    assert CandidateLine.parse(written) == CandidateLine.parse(text) == CandidateLine.parse(f"{bare}\r\n")


def test_every_part_of_a_line_is_found() -> None:
    """A relayed TCP candidate with all there is."""
    line = CandidateLine.parse(
        "a=candidate:a+/9 256 TCP 1 2001:DB8:0::1 65535 typ relay raddr 198.51.100.1 rport 9"
        " tcptype so generation 3 ufrag a+b/"
    )
    assert line == CandidateLine(
        *("a+/9", 256, "tcp", 1, "2001:db8::1", 65535, CandidateType.RELAYED, "198.51.100.1", 9),
        TcpType.SIMULTANEOUS_OPEN,
        (("generation", "3"), ("ufrag", "a+b/")),
    )
    candidate = line.candidate()
    assert candidate.address == Address("2001:db8::1", 65535)
    assert candidate.related == Address("198.51.100.1", 9)
    assert candidate.tcp_type is TcpType.SIMULTANEOUS_OPEN
    assert candidate.base is None


def test_an_mdns_name_stays_a_name() -> None:
    """It is no candidate before somebody has looked it up."""
    line = CandidateLine.parse(CHROMIUM[0].replace("e42e", "E42E"))
    assert line.is_name
    assert line.host == "e42e2ffc-204b-480d-b93b-a3de034a57cc.local"
    assert line.candidate("192.0.2.9").address == Address("192.0.2.9", 56230)
    for host in (None, "other.local", "not an address"):
        with pytest.raises(UsageError):
            line.candidate(host)


def test_a_related_name_is_kept_in_the_line_only() -> None:
    """Nothing is looked up for what is for information only."""
    text = "candidate:1 1 udp 5 203.0.113.7 5000 typ srflx raddr abc.local rport 9"
    line = CandidateLine.parse(text)
    assert line.related_host == "abc.local"
    assert line.candidate().related is None
    assert line.write() == text


def test_a_related_address_may_come_without_its_port() -> None:
    """RFC 8839 has them as two optional parts."""
    line = CandidateLine.parse("1 1 udp 5 203.0.113.7 5000 typ srflx raddr 192.0.2.2")
    assert (line.related_host, line.related_port) == ("192.0.2.2", 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate:",
        "candidate",
        "1 1 udp 2130706431 192.0.2.2 35570 host",
        "1 1 udp 2130706431 192.0.2.2 35570 typ",
        "1 1 udp 2130706431 192.0.2.2 35570 type host",
        "1  1 udp 2130706431 192.0.2.2 35570 typ host",
        HOST.replace("1 ", "prflx:1 ", 1),
        HOST.replace("1 ", " ", 1),
        HOST.replace("1 ", "x" * 33 + " ", 1),
        HOST.replace(" 1 ", " 0 "),
        HOST.replace(" 1 ", " 257 "),
        HOST.replace(" 1 ", " -1 "),
        HOST.replace(" 1 ", " +1 "),
        HOST.replace(" 1 ", " 1_0 "),
        HOST.replace(" 1 ", " \u0661 "),
        HOST.replace("udp", "sctp"),
        HOST.replace("udp", "tcp"),
        HOST.replace("udp", ""),
        HOST.replace("2130706431", "0"),
        HOST.replace("2130706431", str(2**31)),
        HOST.replace("2130706431", "9" * 5000),
        HOST.replace("192.0.2.2", "192.0.2"),
        HOST.replace("192.0.2.2", "192.0.2.02"),
        HOST.replace("192.0.2.2", "fe80::1%eth0"),
        HOST.replace("192.0.2.2", "[2001:db8::1]"),
        HOST.replace("192.0.2.2", "example.org"),
        HOST.replace("192.0.2.2", "a.b.local"),
        HOST.replace("192.0.2.2", f"{'a' * 64}.local"),
        HOST.replace("35570", "65536"),
        HOST.replace("35570", ""),
        HOST.replace("host", "guest"),
        f"{HOST} generation",
        f"{HOST}  0",
        f"{HOST} a=b 0",
        f"{HOST} raddr 192.0.2.1 raddr 192.0.2.1",
        f"{HOST} raddr nowhere rport 9",
        f"{HOST} rport 9",
        f"{HOST} raddr 192.0.2.1 rport x",
        f"{HOST} tcptype active",
        f"{HOST.replace('udp', 'tcp')} tcptype both",
        f"{HOST} a \x7f",
        f"{HOST} a ä",
        f"{HOST}\r\na=ice-lite",
        f"{HOST} name {'x' * MAX_LINE}",
    ],
)
def test_what_is_no_candidate_is_one_error(text: str) -> None:
    """The error belongs to the family of the peer's misbehaviour."""
    with pytest.raises(MalformedIceLine) as caught:
        CandidateLine.parse(text)
    assert isinstance(caught.value, MalformedMessage)


@given(st.one_of(st.text(max_size=80), st.text(alphabet=" 0123456789abcdehinoprstuy.:=/+-", max_size=80)))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever is read can be written and is read as the same; the rest is the one error."""
    for line in (text, f"a=candidate:{text}", f"{HOST} {text}", f"ice-options:{text}"):
        try:
            read = read_attribute(line)
        except MalformedIceLine:
            continue
        if read is not None:
            assert read_attribute(read.write()) == read


ICE_CHARS = "ABCXYZabcxyz019+/"
HOSTS = st.one_of(
    st.ip_addresses().map(str).filter(lambda host: "%" not in host),
    st.text("abcz019-", min_size=1, max_size=63).map(lambda label: f"{label}.local"),
)
EXTENSIONS = st.tuples(
    st.text("abz-.!", min_size=1, max_size=9),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
).filter(lambda pair: pair[0] not in ("raddr", "rport", "tcptype"))


@st.composite
def candidate_lines(draw: st.DrawFn) -> CandidateLine:
    tcp_type = draw(st.none() | st.sampled_from(TcpType))
    related_host = draw(st.just("") | HOSTS)
    return CandidateLine(
        draw(st.text(ICE_CHARS, min_size=1, max_size=32)),
        draw(st.integers(1, 256)),
        "udp" if tcp_type is None else "tcp",
        draw(st.integers(1, MAX_PRIORITY)),
        draw(HOSTS),
        draw(st.integers(0, 65535)),
        draw(st.sampled_from(CandidateType)),
        related_host,
        draw(st.integers(0, 65535)) if related_host else 0,
        tcp_type,
        tuple(draw(st.lists(EXTENSIONS, max_size=4))),
    )


@given(candidate_lines(), st.sampled_from(["", "a=", " a="]), st.sampled_from(["", "\n", "\r\n"]))
def test_what_is_written_is_read_as_the_same(line: CandidateLine, before: str, after: str) -> None:
    """In every spelling, for every line that can be."""
    assert CandidateLine.parse(f"{before}{line.write()}{after}") == line
    assert read_attribute(f"{before}{line.write()}{after}") == line


@pytest.mark.parametrize(
    "changed",
    [
        {"foundation": "1 1 udp"},
        {"foundation": "prflx:1"},
        {"component": 0},
        {"transport": "UDP"},
        {"priority": MAX_PRIORITY + 1},
        {"host": "2001:DB8::1"},
        {"host": "192.0.2.2\r\na=ice-lite"},
        {"port": -1},
        {"related_port": 9},
        {"tcp_type": TcpType.PASSIVE},
        {"extensions": (("raddr", "192.0.2.1"),)},
        {"extensions": (("a", "b c d"),)},
        {"extensions": (("a", "\n"),)},
        {"extensions": (("a", "x" * MAX_LINE),)},
    ],
)
def test_nothing_is_written_that_would_be_read_as_something_else(changed: dict[str, object]) -> None:
    """No field can smuggle another one in."""
    fields: dict[str, object] = {
        "foundation": "1", "component": 1, "transport": "udp", "priority": 5, "host": "192.0.2.2", "port": 5,
        "type": CandidateType.HOST,
    }  # fmt: skip
    line = CandidateLine(**(fields | changed))  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        line.write()


def test_local_candidates_become_lines_that_lead_back_to_them() -> None:
    """All but the base, which is not the other side's business."""
    factory = CandidateFactory()
    server, mapped = Address("198.51.100.1", 3478), Address("203.0.113.7", 40000)
    for candidate in (
        factory.host(BASE),
        factory.server_reflexive(mapped, BASE, server),
        factory.relayed(Address("2001:db8::7", 50000), mapped, server),
    ):
        line = CandidateLine.of(candidate, extensions={"generation": "1"})
        assert line.extensions == (("generation", "1"),)
        read = CandidateLine.parse(line.write()).candidate()
        assert (read.address, read.related) == (candidate.address, candidate.related)
        assert (read.priority, read.type) == (candidate.priority, candidate.type)
        assert (read.foundation, read.base) == (candidate.foundation, None)


def test_a_private_line_tells_no_address_behind_it() -> None:
    """Related addresses are there, as some agents want them, and say nothing (RFC 8839 §5.1)."""
    server = Address("198.51.100.1", 3478)
    for mapped, told in ((Address("203.0.113.7", 4000), "0.0.0.0"), (Address("2001:db8::9", 4000), "::")):
        relayed = CandidateFactory().relayed(Address("198.51.100.1", 50000), mapped, server)
        line = CandidateLine.of(relayed, private=True)
        assert (line.related_host, line.related_port) == (told, 9)
    assert CandidateLine.of(CandidateFactory().host(BASE), private=True).related_host == ""


def test_a_candidate_that_cannot_be_told_is_refused() -> None:
    """A peer-reflexive one has a foundation that equals nobody's, which no line can have."""
    learned = Candidate("prflx:1", 1, "udp", 5, BASE, CandidateType.PEER_REFLEXIVE)
    with pytest.raises(UsageError):
        CandidateLine.of(learned)


UFRAG, PASSWORD = "0mrN", "WFRnJqOfx9eAxHEDmWr2SVAe"


@pytest.mark.parametrize("prefix", ["", "a="])
@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        (f"ice-ufrag:{UFRAG}", IceUfrag(UFRAG)),
        (f"ice-pwd:{PASSWORD}", IcePwd(PASSWORD)),
        ("ice-options:trickle", IceOptions(("trickle",))),
        ("ice-options:ice2 trickle google-ice", IceOptions(("ice2", "trickle", "google-ice"))),
        ("ice-lite", IceLite()),
        ("end-of-candidates", EndOfCandidates()),
        (f"candidate:{HOST}", CandidateLine.parse(HOST)),
    ],
)
def test_attributes_are_read_and_written(prefix: str, text: str, meaning: object) -> None:
    """Each line has one meaning, and each meaning one line."""
    read = read_attribute(f"{prefix}{text}\r\n")
    assert read == meaning
    assert read is not None
    assert read.write() == text


@pytest.mark.parametrize(
    "text",
    ["ice-ufrag:abc", f"ice-ufrag:{'a' * 257}", "ice-ufrag:ab:cd", "ice-ufrag", "ice-pwd:short",
     f"ice-pwd:{'a' * 257}", "ice-pwd:!!!!!!!!!!!!!!!!!!!!!!!!", "ice-options:", "ice-options:a  b",
     "candidate:", "m=\0", "x" * (MAX_LINE + 1)],
)  # fmt: skip
def test_attributes_that_are_none_are_one_error(text: str) -> None:
    """Too short, too long, or of other characters than RFC 8839 §5.4 has."""
    with pytest.raises(MalformedIceLine):
        read_attribute(text)


@pytest.mark.parametrize(
    "text", ["", "v=0", "m=application 9 UDP/DTLS/SCTP x", "a=setup:actpass", "ice-mismatch"]
)
def test_other_lines_of_a_description_mean_nothing(text: str) -> None:
    """A whole description may be handed over line by line."""
    assert read_attribute(text) is None


@pytest.mark.parametrize(
    "value", [IceUfrag("abc"), IceUfrag("abcd\n"), IcePwd("short"), IceOptions(()), IceOptions(("a b",))]
)
def test_attributes_that_are_none_are_not_written(value: IceUfrag | IcePwd | IceOptions) -> None:
    """The caller hears of it, not the other side."""
    with pytest.raises(UsageError):
        value.write()


def test_a_password_does_not_print() -> None:
    """Its line is the only way to it."""
    assert PASSWORD not in repr(IcePwd(PASSWORD))

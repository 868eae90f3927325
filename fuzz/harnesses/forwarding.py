"""What a forwarding reads: the other side's messages, programs that speak SOCKS5, and what people write."""

from __future__ import annotations

from crowline.base.addresses import AddressClass, classify
from crowline.base.errors import UsageError
from crowline.forward import messages as m
from crowline.forward.permits import Permit, Permits
from crowline.forward.rules import parse_dynamic, parse_local
from crowline.forward.socks import (
    MalformedSocks,
    SocksConversation,
    SocksRequest,
    format_address,
    format_datagram,
    parse_datagram,
    split_datagram,
)
from fuzz.harness import Harness

_MESSAGES: tuple[m.Control | m.Head | m.Answer, ...] = (
    m.Reach(1, "udp", "dns.example", 53),
    m.Roam(0),
    m.Listen(2, "tcp", "127.0.0.1", 0, "localhost:80"),
    m.Granted(2, 4711),
    m.Denied(3, m.Reason.NOT_ALLOWED),
    m.Connect(1, "tcp", "web.example", 80),
    m.Connect(1, "udp", flow=4),
    m.Arrived(7),
    m.Opened(),
    m.Failed(m.Reason.SILENT),
)
_GREETING = b"\x05\x01\x00"
_REQUESTS = (
    b"\x05\x01\x00\x03\x0bexample.org\x01\xbbGET",
    b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50",
    b"\x05\x03\x00\x04" + bytes(16) + b"\x00\x00",
)
_DECODERS = (m.decode_control, m.decode_head, m.decode_answer)


def run_messages(data: bytes) -> None:
    """At most one decoder takes it; what is read can be written again, and is the same."""
    taken = []
    for decode in _DECODERS:
        try:
            message = decode(data)
        except m.MalformedForwardMessage:
            continue
        taken.append(message)
        assert decode(m.encode(message)[m.LENGTH.size :]) == message
    if not taken:
        raise m.MalformedForwardMessage
    assert len(taken) == 1


def run_socks(data: bytes) -> None:
    """The request and what follows it are the same however the bytes are cut."""
    whole = _converse([data])
    assert whole == _converse([data[at : at + 1] for at in range(len(data))])
    if whole is None:
        raise MalformedSocks


def run_datagram(data: bytes) -> None:
    """What a program's datagram says can be written again, and is read the same."""
    inner = parse_datagram(data)
    parsed = None if inner is None else split_datagram(memoryview(inner))
    if parsed is None:
        raise MalformedSocks
    host, port, payload = parsed
    again = parse_datagram(format_datagram(format_address(host, port) + bytes(payload)))
    assert again is not None
    found = split_datagram(memoryview(again))
    assert found is not None and (found[0], found[1], bytes(found[2])) == (host, port, bytes(payload))


def run_words(data: bytes) -> None:
    """Rules and patterns; a star lets nobody in that is not in the internet."""
    text = data.decode(errors="replace")
    refused = 0
    for parse in (parse_local, parse_dynamic):
        try:
            parse(text)
        except UsageError as error:
            assert error.hint
            refused += 1
    try:
        permit = Permit.parse(text)
    except UsageError:
        if refused == 2:
            raise
        return
    assert Permit.parse(str(permit)) == permit
    if permit.host.startswith("*"):
        for address in ("127.0.0.1", "::ffff:10.0.0.1", "8.8.8.8"):
            chosen = Permits([permit]).choose("a.b", permit.ports[0], [address])
            assert not chosen or classify(address) is AddressClass.OPEN


def _converse(pieces: list[bytes]) -> tuple[SocksRequest | None, bytes] | None:
    """The request and all that was answered; None for what is no SOCKS5."""
    conversation, said, request = SocksConversation(), b"", None
    for index, piece in enumerate(pieces):
        try:
            request = conversation.feed(piece)
        except MalformedSocks:
            return None
        said += conversation.outgoing
        if request is not None:
            rest = conversation.rest + b"".join(pieces[index + 1 :])
            return request, said + rest
    return None, said


HARNESSES = (
    Harness(
        name="forward-messages",
        run=run_messages,
        module="crowline/forward/messages",
        seeds=tuple(m.encode(message)[m.LENGTH.size :] for message in _MESSAGES),
        allowed=(m.MalformedForwardMessage,),
        tokens=(
            b'"t":',
            b'"rule":',
            b'"flow":',
            b'"host":"',
            b'"port":',
            b'"transport":"udp"',
            b"null",
            b"1e3",
        ),
    ),
    Harness(
        name="forward-socks",
        run=run_socks,
        module="crowline/forward/socks",
        seeds=tuple(_GREETING + request for request in _REQUESTS),
        allowed=(MalformedSocks,),
        tokens=(_GREETING, *_REQUESTS),
    ),
    Harness(
        name="forward-datagram",
        run=run_datagram,
        module="crowline/forward/socks",
        seeds=tuple(format_datagram(request[3:]) for request in _REQUESTS),
        allowed=(MalformedSocks,),
        tokens=(b"\x00\x00\x00", b"\x03", b"\xff"),
    ),
    Harness(
        name="forward-words",
        run=run_words,
        module="crowline/forward/",
        seeds=(
            b"8080:host:80",
            b"[::1]:53:[2001:db8::1]:53/udp",
            b"1080",
            b"*.example.org:443",
            b"10.0.0.0/8:*",
        ),
        allowed=(UsageError,),
        tokens=(b"*", b"*.", b":", b"[", b"]", b"/udp", b"/24", b"::ffff:", b"65535", b"-"),
    ),
)

"""Where a hub says that its services are: readable by and for sides that know less."""

from __future__ import annotations

import json

import pytest

from crowline.rendezvous.wire import MalformedWire, ServerAddress, Welcome, decode_hub, encode

FINGERPRINT = "ab" * 32


def test_a_hub_that_knows_only_udp_is_understood() -> None:
    """Without transport and fingerprint, a service is UDP and shows no certificate."""
    old = json.dumps({"t": "welcome", "v": 1, "stun": [{"host": "", "port": 3478}]}).encode()
    welcome = decode_hub(old)
    assert isinstance(welcome, Welcome)
    assert welcome.stun == (ServerAddress("", 3478, "udp", ""),)


def test_transport_and_fingerprint_survive_the_wire() -> None:
    """What the server says of a TLS service arrives."""
    service = ServerAddress("turn.example", 5349, "tls", FINGERPRINT)
    welcome = decode_hub(encode(Welcome(1, (service,))))
    assert isinstance(welcome, Welcome)
    assert welcome.stun == (service,)


@pytest.mark.parametrize("fingerprint", ["AB" * 32, "ab" * 31, "zz" * 32, "ab:" * 32])
def test_a_fingerprint_that_is_none_is_refused(fingerprint: str) -> None:
    """A pin that could never match, or match too much, does not pass for one."""
    with pytest.raises(MalformedWire):
        decode_hub(encode(Welcome(1, (ServerAddress("", 5349, "tls", fingerprint),))))

"""The certificate in a description: for peers that know of it, and beside those that do not."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from crowline.link.identity import Identity
from crowline.rendezvous.signals import MAX_SIGNAL, Description, MalformedSignal, decode, encode

IDENTITY = Identity.generate()
FULL = Description(
    "ufrag", "p" * 22, IDENTITY.fingerprint.hex(), certificate=IDENTITY.certificate_der, renominate=True
)


class OldDescription(msgspec.Struct, frozen=True, tag_field="t", tag="description"):
    """What a side of the first version knows."""

    ufrag: str
    pwd: str
    fingerprint: str
    ta_ms: int = 50
    renominate: bool = False
    version: int = 1


def altered(**fields: Any) -> bytes:
    return json.dumps(json.loads(encode(FULL)) | fields).encode()


def test_a_certificate_travels_in_base64() -> None:
    """DER in JSON, and back."""
    sent = encode(FULL)
    assert decode(sent) == FULL
    assert base64.b64decode(json.loads(sent)["certificate"]) == IDENTITY.certificate_der
    assert len(sent) < MAX_SIGNAL / 4


def test_a_side_that_knows_no_certificate_reads_the_rest() -> None:
    """The field is one of those that older sides ignore."""
    old = msgspec.json.decode(encode(FULL), type=OldDescription)
    assert old == OldDescription("ufrag", "p" * 22, IDENTITY.fingerprint.hex(), renominate=True)


@pytest.mark.parametrize("present", [True, False], ids=["empty", "absent"])
def test_a_description_without_a_certificate_is_a_good_one(present: bool) -> None:
    """Such a side takes QUIC links only."""
    fields = json.loads(altered(certificate=""))
    if not present:
        del fields["certificate"]
    description = decode(json.dumps(fields).encode())
    assert isinstance(description, Description)
    assert description.certificate == b"" and description.fingerprint == IDENTITY.fingerprint.hex()


LARGE = bytes(1025)


@pytest.mark.parametrize(
    "fields",
    [
        {"certificate": base64.b64encode(Identity.generate().certificate_der).decode()},
        {"certificate": base64.b64encode(IDENTITY.certificate_der + b"\0").decode()},
        {"fingerprint": "0" * 64},
        {"certificate": base64.b64encode(LARGE).decode(), "fingerprint": sha256(LARGE).hexdigest()},
        {"certificate": "no base64!"},
        {"certificate": "AAA"},
        {"certificate": 7},
        {"certificate": None},
        {"certificate": ["AAAA"]},
    ],
    ids=["other", "longer", "fingerprint", "too_large", "text", "padding", "number", "null", "list"],
)
def test_a_certificate_that_is_none_or_another_one_spoils_the_description(fields: dict[str, Any]) -> None:
    """Two statements about one thing that differ are a lie, and sizes are bounded before they are used."""
    with pytest.raises(MalformedSignal):
        decode(altered(**fields))


def test_the_largest_description_fits_into_a_signal() -> None:
    """All fields at their limits."""
    certificate = bytes(1024)
    largest = Description(
        "u" * 256, "p" * 256, sha256(certificate).hexdigest(), 10_000, True, 2**31, certificate
    )
    assert len(encode(largest)) < MAX_SIGNAL
    assert decode(encode(largest)) == largest

"""Whole meetings across NATs that nothing else leads through: a router opens a port when asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crowline.lab.kernel_attempt import kernel_attempt
from crowline.lab.presets import PRESETS
from crowline.lab.profile import PortMapping
from needs import needs_program

pytestmark = pytest.mark.peer

SYMMETRIC = PRESETS["symmetric"]


@pytest.fixture(autouse=True)
def programs() -> None:
    needs_program("miniupnpd")
    needs_program("nft")


@pytest.mark.parametrize(
    ("kind", "side"),
    [
        (PortMapping.UPNP, "waiting"),
        (PortMapping.UPNP, "joining"),
        (PortMapping.NAT_PMP, "waiting"),
        (PortMapping.PCP, "joining"),
    ],
)
def test_two_random_nats_meet_directly_by_an_open_port(kind: PortMapping, side: str) -> None:
    """Both draw a new random port for each destination: without a mapping there would be the relay."""
    mapped = replace(SYMMETRIC, port_mapping=kind)
    sides = (mapped, SYMMETRIC) if side == "waiting" else (SYMMETRIC, mapped)
    outcome = kernel_attempt(*sides)
    assert outcome.kind == "direct", outcome


def test_a_side_without_udp_dials_an_open_tcp_port() -> None:
    """TCP is mapped as randomly as UDP there, so that it could not be punched."""
    outcome = kernel_attempt(replace(SYMMETRIC, port_mapping=PortMapping.PCP), PRESETS["udp-blocked"])
    assert outcome.kind == "direct", outcome

"""An examination as lines for people and as fields for programs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from crowline.diagnosis.diagnosis import diagnose
from crowline.diagnosis.facts import Facts, FirewallFacts, MtuFacts, ServerFacts, Stance
from crowline.diagnosis.report import SHOWN_FIXES, to_fields, to_lines
from crowline.lab.presets import PRESETS
from diagnosed_places import facts_of

FIELDS = {
    "schema", "verdict", "exit", "summary", "reach", "reasons", "fixes", "prospects", "server", "ipv4",
    "ipv6", "udp", "udp_ports", "tcp", "routers", "double_nat", "carrier_nat", "hops", "mtu", "proxy",
    "captive_portal", "firewalls", "vpn", "left_out", "seconds",
}  # fmt: skip


def lines(facts: Facts) -> dict[str, list[str]]:
    """What is said under each heading."""
    said: dict[str, list[str]] = {}
    heading = ""
    for name, text in to_lines(facts, diagnose(facts), 1.94):
        heading = name or heading
        said.setdefault(heading, []).append(text)
    return said


@pytest.mark.parametrize("name", PRESETS)
def test_every_place_can_be_written_down(name: str) -> None:
    """All fields of the schema are there, and nothing in them that JSON does not know."""
    facts = facts_of(name)
    fields = to_fields(facts, diagnose(facts), 1.94)
    assert set(fields) == FIELDS
    assert json.loads(json.dumps(fields)) == fields
    assert fields["schema"] == "doctor/1"
    assert lines(facts)["Verdict"] == [fields["summary"]]


def test_no_server_is_written_down_too() -> None:
    """What is not known is null."""
    facts = Facts(ServerFacts("ws://x", problem="The server at ws://x cannot be reached."))
    fields = to_fields(facts, diagnose(facts), 0.1)
    assert set(fields) == FIELDS
    assert (fields["udp"], fields["tcp"], fields["ipv4"]["nat"]) == (None, None, None)
    assert fields["exit"] == 22
    assert lines(facts)["Server"] == ["The server at ws://x cannot be reached."]


def test_the_names_that_people_look_for_are_said() -> None:
    """Those of RFC 3489 beside those of RFC 4787."""
    said = " ".join(lines(facts_of("home"))["NAT"])
    assert "same port for every destination (easy)" in said
    assert "by address and port" in said
    assert "port restricted cone" in said


def test_two_nats_are_counted() -> None:
    """The second is the carrier's where its address says so."""
    assert "2 NATs, the second of the carrier" in lines(facts_of("cgn"))["IPv4"][0]


def test_fixes_are_few_numbered_and_come_with_their_commands() -> None:
    """Programs get all of them."""
    facts = replace(
        facts_of("public"),
        firewalls=(FirewallFacts("ufw", Stance.BLOCKS, Stance.LETS),),
        mtu=MtuFacts(1228, 1280),
    )
    fixes = lines(facts)["Fix first"]
    assert fixes[0].startswith("1. ") and any("sudo ufw allow" in line for line in fixes)
    assert sum(line[0].isdigit() for line in fixes) <= SHOWN_FIXES


def test_where_nothing_is_wrong_nothing_is_to_be_done() -> None:
    """And it is said."""
    assert lines(facts_of("public"))["Fix first"] == ["nothing needs to be changed"]

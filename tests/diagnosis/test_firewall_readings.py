"""What becomes of a UDP packet, read out of what the tools of firewalls print."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crowline.diagnosis.facts import FirewallFacts, Stance
from crowline.diagnosis.firewalls import (
    read_firewalld,
    read_iptables,
    read_netsh,
    read_nftables,
    read_socketfilterfw,
    read_ufw,
)

LETS, BLOCKS, UNKNOWN = Stance.LETS, Stance.BLOCKS, Stance.UNKNOWN

UFW_CONF = "# /etc/ufw/ufw.conf\n\nENABLED=yes\nLOGLEVEL=low\n"
UFW_DEFAULTS = 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\n'

# As `ufw` and Docker leave them, shortened.
IPTABLES_UFW = """\
-P INPUT DROP
-P FORWARD DROP
-P OUTPUT ACCEPT
-N ufw-before-input
-N ufw-user-input
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
"""


def nft(*entries: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]})


def chain(hook: str, policy: str = "accept", name: str = "") -> dict[str, Any]:
    key = {"family": "inet", "table": "filter", "name": name or hook}
    return {"chain": {**key, "type": "filter", "hook": hook, "prio": 0, "policy": policy}}


def rule(where: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": "filter", "chain": where, "expr": list(expressions)}}


def match(left: dict[str, Any], right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


IS_UDP = match({"meta": {"key": "l4proto"}}, "udp")
ANSWERS = match({"ct": {"key": "state"}}, ["established", "related"], "in")
LOOPBACK = match({"meta": {"key": "iifname"}}, "lo")
ACCEPT, DROP, REJECT = {"accept": None}, {"drop": None}, {"reject": {"type": "icmpx"}}
# As nft prints what iptables-nft put there and it has no words of its own for.
IPTABLES_REJECT = {"xt": {"type": "target", "name": "REJECT"}}
IPTABLES_MATCH = {"xt": {"type": "match", "name": "recent"}}
DEEPER = {"jump": {"target": "deep"}}
IN, IN_DROPS = chain("input"), chain("input", "drop")


@pytest.mark.parametrize(
    ("entries", "inbound", "outbound"),
    [
        ([IN_DROPS], BLOCKS, LETS),
        ([IN_DROPS, rule("input", ANSWERS, ACCEPT), rule("input", LOOPBACK, ACCEPT)], BLOCKS, LETS),
        ([IN_DROPS, rule("input", IS_UDP, ACCEPT)], LETS, LETS),
        ([IN, rule("input", ANSWERS, ACCEPT), rule("input", {"counter": None}, REJECT)], BLOCKS, LETS),
        ([chain("output"), rule("output", IS_UDP, DROP)], LETS, BLOCKS),
        ([chain("output", "drop"), rule("output", LOOPBACK, ACCEPT)], LETS, BLOCKS),
        ([IN, rule("input", DEEPER), rule("deep", DROP)], BLOCKS, LETS),
        ([IN, rule("input", DEEPER), rule("deep", {"return": None})], LETS, LETS),
        ([IN, rule("input", {"goto": {"target": "deep"}}), rule("input", DROP)], LETS, LETS),
        ([IN, rule("input", {"goto": {"target": "deep"}}), rule("deep", DROP)], BLOCKS, LETS),
        ([IN, rule("input", IPTABLES_REJECT)], BLOCKS, LETS),
        ([IN, rule("input", IPTABLES_MATCH, IPTABLES_REJECT)], LETS, LETS),
        ([IN, chain("input", "drop", "second")], BLOCKS, LETS),
    ],
)  # fmt: skip
def test_rules_of_nftables(entries: list[dict[str, Any]], inbound: Stance, outbound: Stance) -> None:
    """Policies, rules for all of UDP, jumps, and several chains of one hook."""
    read = read_nftables(nft(*entries))
    assert read is not None
    assert (read.name, read.inbound, read.outbound) == ("nftables", inbound, outbound)
    assert read.inbound_chain.startswith("inet filter ") is (inbound is BLOCKS)
    assert read.outbound_chain == ("inet filter output" if outbound is BLOCKS else "")


def test_translation_alone_is_no_firewall() -> None:
    """Containers leave such tables behind."""
    nat = {
        "family": "ip",
        "table": "nat",
        "name": "p",
        "type": "nat",
        "hook": "postrouting",
        "policy": "accept",
    }
    assert read_nftables(nft({"chain": nat})) is None


def test_chains_that_call_themselves_end() -> None:
    """No kernel takes such a set; who prints it may say anything."""
    circle = [chain("input", "drop"), rule("input", {"jump": {"target": "input"}})]
    blocked = FirewallFacts("nftables", BLOCKS, LETS, inbound_chain="inet filter input")
    assert read_nftables(nft(*circle)) == blocked


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"nftables": 7}', '{"nftables": [{"rule": 3}]}', "[" * 9999]
)
def test_nonsense_of_nft_is_said_to_be_unreadable(text: str) -> None:
    """And never an error, nor a guess."""
    read = read_nftables(text)
    assert read is not None and (read.inbound, read.outbound) == (UNKNOWN, UNKNOWN) and read.note


def test_rules_of_iptables_as_ufw_leaves_them() -> None:
    """It lets in answers, and what it was told to."""
    assert read_iptables(IPTABLES_UFW) == FirewallFacts("iptables", BLOCKS, LETS)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n", None),
        ("-P INPUT DROP\n-P OUTPUT ACCEPT\n-A INPUT -p udp -j ACCEPT\n",
         FirewallFacts("iptables", LETS, LETS)),
        ("-P INPUT ACCEPT\n-P OUTPUT ACCEPT\n-A OUTPUT -p udp -m udp -j REJECT --reject-with x\n",
         FirewallFacts("iptables", LETS, BLOCKS)),
        ("-P INPUT ACCEPT\n-P OUTPUT DROP\n-A OUTPUT -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\n",
         FirewallFacts("iptables", LETS, LETS)),
        ("nonsense", FirewallFacts("iptables", note="what iptables printed cannot be read")),
    ],
)  # fmt: skip
def test_rules_of_iptables(lines: str, expected: FirewallFacts | None) -> None:
    """Policies, and the rules that any UDP packet meets."""
    assert read_iptables(lines) == expected


def test_ufw_is_read_by_everybody() -> None:
    """Its files tell whether it is on, and what it does with the rest."""
    assert read_ufw(UFW_CONF, UFW_DEFAULTS) == FirewallFacts("ufw", BLOCKS, LETS)
    assert read_ufw(UFW_CONF.replace("yes", "no"), UFW_DEFAULTS) is None
    assert read_ufw("", "") is None
    assert read_ufw(UFW_CONF, "") == FirewallFacts("ufw", UNKNOWN, UNKNOWN)


def test_firewalld_blocks_in_all_zones_but_one() -> None:
    """Whatever the zone, it lets out."""
    assert read_firewalld("running\n", "public\n") == FirewallFacts("firewalld", BLOCKS, LETS)
    assert read_firewalld("running\n", "trusted\n") == FirewallFacts("firewalld", LETS, LETS)
    assert read_firewalld("not running\n", "") is None


NETSH = """
Private Profile Settings:
----------------------------------------------------------------------
State                                 ON
Firewall Policy                       BlockInbound,AllowOutbound
LocalFirewallRules                    N/A (GPO-store only)
"""


def test_windows_in_any_language() -> None:
    """The policy's words are not translated; that it is off is told in English alone."""
    assert read_netsh(NETSH) == FirewallFacts("Windows Defender Firewall", BLOCKS, LETS)
    german = NETSH.replace("State   ", "Status  ").replace("Firewall Policy", "Firewallrichtlinie")
    assert read_netsh(german) == read_netsh(NETSH)
    blocking = NETSH.replace("AllowOutbound", "BlockOutbound")
    assert read_netsh(blocking) == FirewallFacts("Windows Defender Firewall", BLOCKS, BLOCKS)
    assert read_netsh(NETSH.replace("ON", "OFF")) is None
    assert read_netsh("?") == FirewallFacts(
        "Windows Defender Firewall", note="what netsh printed cannot be read"
    )


def test_macos_tells_only_whether_it_blocks_everything() -> None:
    """Else it asks for each program."""
    name = "the macOS application firewall"
    on, off = "Firewall is enabled. (State = 1)", "Firewall is disabled. (State = 0)"
    assert read_socketfilterfw(on, "Block all DISABLED!") == FirewallFacts(name, UNKNOWN, LETS)
    assert read_socketfilterfw(on, "Firewall has block all state set to enabled.") == FirewallFacts(
        name, BLOCKS, LETS
    )
    assert read_socketfilterfw("Firewall is blocking. (State = 2)", "") == FirewallFacts(name, BLOCKS, LETS)
    assert read_socketfilterfw(off, "") is None
    assert read_socketfilterfw("", "") == FirewallFacts(
        name, note="what socketfilterfw printed cannot be read"
    )

"""What the tools of local firewalls print, read for one question: what becomes of a UDP packet?

The packet is the first one of its kind: by no rule's address, port, interface or mark. A rule decides about
it only if it would match any such packet, so that what is read is the rule and not the exceptions. Whatever
cannot be read is `Stance.UNKNOWN`; nothing here raises on what a tool printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from crowline.diagnosis.facts import FirewallFacts, Stance
from crowline.diagnosis.remedies import FIREWALLD, IPTABLES, MACOS, NFTABLES, UFW, WINDOWS

_DEEPEST_JUMP = 8  # chains that call chains
_VERDICTS = {"accept": Stance.LETS, "drop": Stance.BLOCKS, "reject": Stance.BLOCKS}


def read_nftables(text: str) -> FirewallFacts | None:
    """`nft -j list ruleset` (libnftables-json(5)); ``None`` where it holds no filter."""
    try:
        rules = _NftRules(json.loads(text)["nftables"])
        stances = rules.stance("input"), rules.stance("output")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return FirewallFacts(NFTABLES, note="what nft printed cannot be read")
    if not rules.has_filters:
        return None
    (inbound, inbound_chain), (outbound, outbound_chain) = stances
    return FirewallFacts(
        NFTABLES, inbound, outbound, inbound_chain=inbound_chain, outbound_chain=outbound_chain
    )


def read_iptables(text: str) -> FirewallFacts | None:
    """`iptables -S`; ``None`` where it holds no rule and every policy accepts."""
    chains: dict[str, list[list[str]]] = {}
    policies: dict[str, Stance] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "-P":
            policies[words[1]] = _VERDICTS.get(words[2].lower(), Stance.UNKNOWN)
        elif len(words) >= 2 and words[0] == "-A":
            chains.setdefault(words[1], []).append(words[2:])
    if not policies:
        return FirewallFacts(IPTABLES, note="what iptables printed cannot be read")
    if not chains and set(policies.values()) == {Stance.LETS}:
        return None

    def stance(name: str) -> Stance:
        return _iptables_verdict(chains, name, 0) or policies.get(name, Stance.UNKNOWN)

    return FirewallFacts(IPTABLES, stance("INPUT"), stance("OUTPUT"))


def read_ufw(configuration: str, defaults: str) -> FirewallFacts | None:
    """`/etc/ufw/ufw.conf` and `/etc/default/ufw`, which everybody may read; ``None`` where it is off."""
    if _setting(configuration, "ENABLED").lower() != "yes":
        return None
    policies = (_setting(defaults, f"DEFAULT_{way}_POLICY").lower() for way in ("INPUT", "OUTPUT"))
    inbound, outbound = (_VERDICTS.get(policy, Stance.UNKNOWN) for policy in policies)
    return FirewallFacts(UFW, inbound, outbound)


def read_firewalld(state: str, zone: str) -> FirewallFacts | None:
    """`firewall-cmd --state` and `--get-default-zone`; ``None`` where it does not run."""
    if state.strip() != "running":
        return None
    inbound = Stance.LETS if zone.strip() == "trusted" else Stance.BLOCKS
    # None of its zones keeps anything from leaving.
    return FirewallFacts(FIREWALLD, inbound, Stance.LETS)


def read_netsh(text: str) -> FirewallFacts | None:
    """`netsh advfirewall show currentprofile`; ``None`` where the firewall is off.

    Words around the values are in the language of the system, the policy's are not.
    """
    policy = re.search(r"\b(Block|Allow)Inbound(?:Always)?,(Block|Allow)Outbound\b", text)
    if policy is None:
        return FirewallFacts(WINDOWS, note="what netsh printed cannot be read")
    if re.search(r"^State\s+OFF\s*$", text, re.MULTILINE):
        return None
    inbound, outbound = (Stance.BLOCKS if word == "Block" else Stance.LETS for word in policy.groups())
    return FirewallFacts(WINDOWS, inbound, outbound)


def read_socketfilterfw(state: str, block_all: str) -> FirewallFacts | None:
    """`socketfilterfw --getglobalstate` and `--getblockall`; ``None`` where it is off.

    It asks the person, or the signature, whether a program may be reached, unless it blocks everything.
    """
    number = re.search(r"State\s*=\s*([0-2])", state)
    if number is None:
        return FirewallFacts(MACOS, note="what socketfilterfw printed cannot be read")
    if number.group(1) == "0":
        return None
    blocks_all = number.group(1) == "2" or re.search(r"\benabled\b", block_all, re.IGNORECASE)
    return FirewallFacts(MACOS, Stance.BLOCKS if blocks_all else Stance.UNKNOWN, Stance.LETS)


def _setting(text: str, name: str) -> str:
    """The value of `NAME=value` or `NAME="value"`, the last that stands there."""
    found = re.findall(rf"^\s*{name}\s*=\s*\"?([A-Za-z]*)\"?\s*(?:#.*)?$", text, re.MULTILINE)
    return found[-1] if found else ""


# --- iptables -------------------------------------------------------------------------------------------


def _iptables_verdict(chains: dict[str, list[list[str]]], name: str, depth: int) -> Stance | None:
    for words in chains.get(name, []):
        target = _iptables_target(words)
        if target in _IPTABLES_VERDICTS:
            return _IPTABLES_VERDICTS[target]
        if target == "RETURN":
            return None
        if target and depth < _DEEPEST_JUMP:
            verdict = _iptables_verdict(chains, target, depth + 1)
            if verdict is not None:
                return verdict
    return None


def _iptables_target(words: list[str]) -> str:
    """Where a rule sends our packet; "" if it does not match it."""
    at = words.index("-j") if "-j" in words else len(words) - 1
    matches, target = words[:at], words[at + 1 : at + 2]
    return target[0] if target and _is_general(matches) else ""


def _is_general(matches: list[str]) -> bool:
    """Whether a rule with these matches is for every first packet of UDP."""
    rest = " ".join(matches)
    for pattern in (r"-p udp(?: -m udp)?", r"-m (?:conntrack --ctstate|state --state) \S*NEW\S*"):
        rest = re.sub(rf"(?:^|\s){pattern}(?=\s|$)", " ", rest)
    return not rest.strip()


_IPTABLES_VERDICTS = {"ACCEPT": Stance.LETS, "DROP": Stance.BLOCKS, "REJECT": Stance.BLOCKS}


# --- nftables -------------------------------------------------------------------------------------------


class _NftRules:
    """The chains of a rule set, by family, table and name."""

    def __init__(self, entries: Iterable[dict[str, Any]]) -> None:
        self._bases: list[tuple[tuple[str, str, str], dict[str, Any]]] = []
        self._rules: dict[tuple[str, str, str], list[list[Any]]] = {}
        for entry in entries:
            if (chain := entry.get("chain")) is not None:
                if chain.get("type") == "filter" and chain.get("family") in ("inet", "ip"):
                    self._bases.append(((chain["family"], chain["table"], chain["name"]), chain))
            elif (rule := entry.get("rule")) is not None:
                key = (rule["family"], rule["table"], rule["chain"])
                self._rules.setdefault(key, []).append(rule["expr"])

    @property
    def has_filters(self) -> bool:
        """Whether any chain decides about packets of this machine."""
        return any(chain.get("hook") in ("input", "output") for _, chain in self._bases)

    def stance(self, hook: str) -> tuple[Stance, str]:
        """What becomes of a packet, and the first base chain of the hook that does not let it pass."""
        for key, chain in self._bases:
            if chain.get("hook") != hook:
                continue
            policy = _VERDICTS.get(chain.get("policy", "accept"), Stance.UNKNOWN)
            verdict = self._verdict(key, 0) or policy
            if verdict is not Stance.LETS:
                return verdict, " ".join(key)
        return Stance.LETS, ""

    def _verdict(self, key: tuple[str, str, str], depth: int) -> Stance | None:
        for expressions in self._rules.get(key, []):
            verdict = self._of_rule(expressions, key, depth)
            if verdict == "return":
                return None
            if isinstance(verdict, Stance):
                return verdict
        return None

    def _of_rule(self, expressions: list[Any], key: tuple[str, str, str], depth: int) -> Stance | str | None:
        for expression in expressions:
            (kind, value), *_ = expression.items()
            if kind in _VERDICTS:
                return _VERDICTS[kind]
            if kind == "return":
                return "return"
            if kind == "xt" and value.get("type") == "target":
                return _VERDICTS.get(value["name"].lower())
            if kind in ("jump", "goto") and depth < _DEEPEST_JUMP:
                verdict = self._verdict((key[0], key[1], value["target"]), depth + 1)
                # Nobody comes back from a goto to the rules that follow it.
                return "return" if verdict is None and kind == "goto" else verdict
            if kind == "match" and not _nft_matches(value):
                return None
            if kind not in _NFT_PASSING:
                return None
        return None


# Statements that let a packet on to the next statement of the rule.
_NFT_PASSING = {"match", "counter", "log", "comment"}


def _nft_matches(match: dict[str, Any]) -> bool:
    """Whether every first packet of UDP matches."""
    left, right, operator = match.get("left"), match.get("right"), match.get("op")
    if left in ({"meta": {"key": "l4proto"}}, {"payload": {"protocol": "ip", "field": "protocol"}}):
        return operator == "==" and _holds(right, "udp")
    if left == {"meta": {"key": "nfproto"}}:
        return operator == "==" and _holds(right, "ipv4")
    if left == {"ct": {"key": "state"}}:
        return operator in ("in", "==") and _holds(right, "new")
    return False


def _holds(right: Any, wanted: str) -> bool:
    if isinstance(right, dict):
        right = right.get("set", [])
    return wanted in right if isinstance(right, list) else right == wanted

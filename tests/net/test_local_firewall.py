"""The tools of local firewalls are asked, and whatever they do, the answer comes in time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crowline.diagnosis.facts import FirewallFacts, Stance
from crowline.net import local_firewall
from crowline.net.local_firewall import local_firewalls

RULES = """\
{"nftables": [{"metainfo": {}}, {"chain": {"family": "inet", "table": "filter", "name": "input",
"type": "filter", "hook": "input", "policy": "drop"}}]}
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of Linux with no tool but those in this folder."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local_firewall, "_SYSTEM_FOLDERS", str(tmp_path))
    monkeypatch.setattr(local_firewall, "_UFW_FILES", (tmp_path / "ufw.conf", tmp_path / "ufw"))
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def printing(folder: Path, text: str) -> str:
    """A script that prints that."""
    said = folder / "said"
    said.write_text(text)
    return f"while IFS= read -r line; do echo \"$line\"; done < '{said}'"


async def test_a_machine_without_any_has_none(tools: Path) -> None:
    """Nothing is known to block anything."""
    assert await local_firewalls() == ()


async def test_the_rules_of_nft_are_read(tools: Path) -> None:
    """As JSON."""
    install(tools, "nft", printing(tools, RULES))
    (found,) = await local_firewalls()
    assert found == FirewallFacts("nftables", Stance.BLOCKS, Stance.LETS, inbound_chain="inet filter input")


async def test_a_tool_that_refuses_is_said_to(tools: Path) -> None:
    """Rules are for root alone, and the person should know that they were not seen."""
    install(tools, "nft", "echo 'Operation not permitted' >&2; exit 1")
    (found,) = await local_firewalls()
    assert (found.name, found.inbound) == ("nftables", Stance.UNKNOWN)
    assert "root" in found.note


async def test_the_files_of_ufw_come_before_its_rules(tools: Path) -> None:
    """It is what the person knows, and what the fix is for."""
    (tools / "ufw.conf").write_text("ENABLED=yes\n")
    (tools / "ufw").write_text('DEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\n')
    install(tools, "nft", printing(tools, RULES))
    assert await local_firewalls() == (FirewallFacts("ufw", Stance.BLOCKS, Stance.LETS),)


async def test_firewalld_is_asked_for_its_zone(tools: Path) -> None:
    """Its state first."""
    install(tools, "firewall-cmd", 'if [ "$1" = --state ]; then echo running; else echo home; fi')
    assert await local_firewalls() == (FirewallFacts("firewalld", Stance.BLOCKS, Stance.LETS),)


async def test_iptables_is_asked_where_nft_is_missing_or_empty(tools: Path) -> None:
    """Old kernels keep its rules apart."""
    install(tools, "nft", printing(tools, '{"nftables": []}\n'))
    install(tools, "iptables", "echo '-P INPUT DROP'; echo '-P OUTPUT ACCEPT'")
    assert await local_firewalls() == (FirewallFacts("iptables", Stance.BLOCKS, Stance.LETS),)


async def test_a_tool_that_never_ends_is_ended(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it the wait."""
    monkeypatch.setattr(local_firewall, "PATIENCE", 0.2)
    install(tools, "nft", "while :; do :; done")
    (found,) = await local_firewalls()
    assert found.note


async def test_a_tool_that_prints_without_end_is_ended(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine has so many rules."""
    monkeypatch.setattr(local_firewall, "MAX_OUTPUT", 4096)
    install(tools, "nft", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")
    (found,) = await local_firewalls()
    assert found.note

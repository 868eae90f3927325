"""What is remembered of routers, and what a damaged memory costs: nothing but the memory."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from crowline.net import router_memory
from crowline.net.gateway import Gateway
from crowline.net.router_memory import FILE, MAX_BYTES, MAX_ROUTERS, RouterMemory
from crowline.portmap.router_events import Protocol
from crowline.portmap.router_port import KnownRouter
from crowline.portmap.upnp.gateway_url import GatewayUrl

GATEWAY = Gateway("192.168.1.1", "192.168.1.10", 2, "eth0")
LOCATION = GatewayUrl.parse("http://192.168.1.1:5000/rootDesc.xml?x=1", "192.168.1.1")
KNOWN = KnownRouter(Protocol.UPNP, LOCATION)


@pytest.fixture(autouse=True)
def _stations(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The routers' network cards."""
    stations: dict[str, bytes] = {}
    monkeypatch.setattr(router_memory, "station_of", lambda host, index: stations.get(host, b""))
    return stations


def test_a_router_is_remembered(tmp_path: Path) -> None:
    """By the next program, with the place of its description."""
    RouterMemory(tmp_path).put(GATEWAY, KNOWN)
    assert RouterMemory(tmp_path).get(GATEWAY) == KNOWN
    RouterMemory(tmp_path).put(GATEWAY, KnownRouter(Protocol.PCP))
    assert RouterMemory(tmp_path).get(GATEWAY) == KnownRouter(Protocol.PCP)


def test_another_router_at_the_same_address_is_another(tmp_path: Path, _stations: dict[str, bytes]) -> None:
    """Half of all routers are at 192.168.1.1; their network cards differ."""
    memory = RouterMemory(tmp_path)
    _stations[GATEWAY.host] = b"\x02\x00\x00\x00\x00\x01"
    memory.put(GATEWAY, KNOWN)
    _stations[GATEWAY.host] = b"\x02\x00\x00\x00\x00\x02"
    assert memory.get(GATEWAY) is None


def test_the_file_names_no_network_and_is_for_this_user_alone(tmp_path: Path) -> None:
    """Neither addresses nor hashes that anybody else could make."""
    RouterMemory(tmp_path).put(GATEWAY, KNOWN)
    text = (tmp_path / FILE).read_text()
    assert "192.168" not in text and "eth0" not in text
    RouterMemory(tmp_path / "other").put(GATEWAY, KNOWN)
    other = json.loads((tmp_path / "other" / FILE).read_text())
    assert not set(other["routers"]) & set(json.loads(text)["routers"])
    if sys.platform != "win32":
        assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_description_elsewhere_is_not_remembered(tmp_path: Path) -> None:
    """It would be taken for the router's own; the search finds it again."""
    elsewhere = GatewayUrl.parse("http://[2001:db8::1]:5000/x", "2001:db8::1")
    RouterMemory(tmp_path).put(GATEWAY, KnownRouter(Protocol.UPNP, elsewhere))
    assert RouterMemory(tmp_path).get(GATEWAY) == KnownRouter(Protocol.UPNP)


def test_the_memory_is_bounded(tmp_path: Path) -> None:
    """The routers that were met last stay."""
    memory = RouterMemory(tmp_path)
    gateways = [Gateway(f"10.0.0.{n}", "10.0.0.250", 2, "eth0") for n in range(1, MAX_ROUTERS + 3)]
    for gateway in gateways:
        memory.put(gateway, KnownRouter(Protocol.PCP))
    assert memory.get(gateways[0]) is None
    assert memory.get(gateways[-1]) == KnownRouter(Protocol.PCP)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"secret": "AAAA"}',
        b'{"secret": 5, "routers": {}}',
        b"[" * 10_000,
        b"x" * (MAX_BYTES + 1),
    ],
    ids=["empty", "half", "a list", "no text", "short secret", "wrong secret", "deep", "giant"],
)
def test_a_damaged_file_is_forgotten(tmp_path: Path, data: bytes) -> None:
    """And replaced by the next thing that is worth remembering."""
    (tmp_path / FILE).write_bytes(data)
    memory = RouterMemory(tmp_path)
    assert memory.get(GATEWAY) is None
    memory.put(GATEWAY, KNOWN)
    assert memory.get(GATEWAY) == KNOWN


@pytest.mark.parametrize(
    "router",
    [
        {"protocol": "MAGIC"},
        {"protocol": "UPNP", "port": 5000, "target": "@198.51.100.1/x"},
        {"protocol": "UPNP", "port": 99999, "target": "/x"},
        {"protocol": "UPNP", "port": 5000, "target": "/x\r\nHost: y"},
    ],
)
def test_a_changed_entry_leads_nowhere_else(tmp_path: Path, router: dict[str, object]) -> None:
    """What the file says is judged as if the router had said it."""
    memory = RouterMemory(tmp_path)
    memory.put(GATEWAY, KNOWN)
    kept = json.loads((tmp_path / FILE).read_text())
    kept["routers"] = dict.fromkeys(kept["routers"], router)
    (tmp_path / FILE).write_text(json.dumps(kept))
    known = memory.get(GATEWAY)
    assert known is None or known.location is None


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    """Nothing is remembered, and nothing is said."""
    (tmp_path / "file").write_text("")
    memory = RouterMemory(tmp_path / "file")
    memory.put(GATEWAY, KNOWN)
    assert memory.get(GATEWAY) is None

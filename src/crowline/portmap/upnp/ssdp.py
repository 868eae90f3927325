"""SSDP: asking who is a gateway, and whom to believe (UPnP Device Architecture 1.1 §1.3)."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.portmap.upnp.element import MalformedUpnp
from crowline.portmap.upnp.gateway_url import GatewayUrl

SSDP_PORT = 1900
GROUP_IPV4 = Address("239.255.255.250", SSDP_PORT)
GROUP_IPV6 = Address("ff02::c", SSDP_PORT)

TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""What a gateway may say it is."""

FALLBACK_TARGETS = ("upnp:rootdevice", "ssdp:all")
"""For gateways that answer to nothing else; their description says what they are."""

MAX_WAIT = 2
"""Seconds over which devices may spread their answers (MX)."""

MAX_ANSWER = 2048
"""Bytes of an answer or a notice; real ones have 300 to 500."""

_GATEWAYS = {
    *(target.rpartition(":")[0] for target in TARGETS),
    "urn:schemas-upnp-org:service:WANIPv6FirewallControl",
}
_ALIVE, _BYEBYE = "ssdp:alive", "ssdp:byebye"


@dataclass(frozen=True, slots=True)
class SsdpAnswer:
    """A gateway's answer. `boot` counts its restarts where it says so (BOOTID.UPNP.ORG)."""

    location: GatewayUrl
    target: str
    usn: str
    boot: int | None = None


@dataclass(frozen=True, slots=True)
class SsdpNotice:
    """A gateway says that it is there, with `location`, or without one that it goes. `boot` is as above."""

    location: GatewayUrl | None
    target: str
    usn: str
    boot: int | None = None


def write_search(target: str, destination: Address) -> bytes:
    """An M-SEARCH for `target`, sent to a group or, as UPnP 1.1 has it, to one host."""
    is_group = destination in (GROUP_IPV4, GROUP_IPV6)
    lines = [
        "M-SEARCH * HTTP/1.1",
        f"HOST: {destination}",
        'MAN: "ssdp:discover"',
        *([f"MX: {MAX_WAIT}"] if is_group else []),
        f"ST: {target}",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def parse_answer(data: Buffer, source: Address, gateway: str) -> SsdpAnswer:
    """What the host at `source` says.

    Only `gateway` (an IP address in canonical form) is believed, and only about itself: an answer of
    another host, or a location on one, would make us send requests to wherever a stranger likes.
    Raises `MalformedUpnp`.
    """
    if source.host != gateway:
        raise MalformedUpnp("That answer is not the gateway's.")
    if len(data) > MAX_ANSWER:
        raise MalformedUpnp("The gateway's answer is too long.")
    status, _, rest = bytes(data).decode("utf-8", "replace").partition("\n")
    words = status.split()
    if len(words) < 2 or not words[0].upper().startswith("HTTP/1.") or words[1] != "200":
        raise MalformedUpnp("That is no answer to a search.")
    fields = _fields(rest)
    return SsdpAnswer(
        location=GatewayUrl.parse(fields.get("location", ""), gateway),
        target=fields.get("st", ""),
        usn=fields.get("usn", ""),
        boot=_number(fields.get("bootid.upnp.org", "")),
    )


def parse_notice(data: Buffer, source: Address, gateway: str) -> SsdpNotice | None:
    """What the host at `source` tells everybody; ``None`` for what has nothing to do with UPnP's notices.

    Only `gateway` is believed, as in `parse_answer`. Raises `MalformedUpnp`.
    """
    if source.host != gateway:
        raise MalformedUpnp("That notice is not the gateway's.")
    if len(data) > MAX_ANSWER:
        raise MalformedUpnp("The gateway's notice is too long.")
    start, _, rest = bytes(data).decode("utf-8", "replace").partition("\n")
    if not start.upper().startswith("NOTIFY "):
        return None
    fields = _fields(rest)
    kind = fields.get("nts", "").lower()
    if kind not in (_ALIVE, _BYEBYE):
        return None
    location = GatewayUrl.parse(fields.get("location", ""), gateway) if kind == _ALIVE else None
    boot = _number(fields.get("bootid.upnp.org", ""))
    return SsdpNotice(location, fields.get("nt", ""), fields.get("usn", ""), boot)


def is_about_gateways(target: str) -> bool:
    """Whether what is told is of a gateway or one of its services, of whatever version."""
    return target.rpartition(":")[0] in _GATEWAYS


def _fields(text: str) -> dict[str, str]:
    """Header fields with their names in lower case; the first of a name counts."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if not line.strip():
            break
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _number(text: str) -> int | None:
    """A decimal number of at most 31 bits (UPnP Device Architecture 1.1 §1.2.2)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None

"""What a UPnP gateway writes: its description, its answers to actions, and documents that nobody wants."""

from __future__ import annotations

import re
from collections.abc import Mapping

DEVICE = "urn:schemas-upnp-org:device:InternetGatewayDevice"
WAN_DEVICE = "urn:schemas-upnp-org:device:WANDevice"
WAN_CONNECTION_DEVICE = "urn:schemas-upnp-org:device:WANConnectionDevice"
WAN_IP = "urn:schemas-upnp-org:service:WANIPConnection"
WAN_PPP = "urn:schemas-upnp-org:service:WANPPPConnection"

CONTROL_URL = "/ctl/IPConn"
DESCRIPTION_URL = "/rootDesc.xml"

DEPTH = 100_000  # elements inside each other; the C stack of a careless parser ends long before
GIANT_PIECE = 64 * 1024  # bytes that are repeated without an end

_HEAD = '<?xml version="1.0"?>'
_SOAP = "http://schemas.xmlsoap.org/soap/envelope/"


def description(version: int, name: str, kind: str = WAN_IP) -> str:
    """The description of a device of that version, nested as the specification has it.

    `kind` is the type of its one service, without its version.
    """
    service = (
        f"<service><serviceType>{kind}:{version}</serviceType>"
        f"<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><SCPDURL>/WANIPCn.xml</SCPDURL>"
        f"<controlURL>{CONTROL_URL}</controlURL><eventSubURL>/evt/IPConn</eventSubURL></service>"
    )
    connection = _device(f"{WAN_CONNECTION_DEVICE}:{version}", name, service)
    wan = _device(f"{WAN_DEVICE}:{version}", name, "", connection)
    root = _device(f"{DEVICE}:{version}", name, "", wan)
    return (
        f'{_HEAD}<root xmlns="urn:schemas-upnp-org:device-1-0">'
        f"<specVersion><major>1</major><minor>1</minor></specVersion>{root}</root>"
    )


def success(action: str, service: str, results: Mapping[str, object]) -> str:
    """The answer to an action that was done."""
    values = "".join(f"<{name}>{value}</{name}>" for name, value in results.items())
    return _envelope(f'<u:{action}Response xmlns:u="{service}">{values}</u:{action}Response>')


def fault(code: int, words: str) -> str:
    """The answer to one that was not."""
    return _envelope(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
        f"<errorDescription>{words}</errorDescription></UPnPError></detail></s:Fault>"
    )


def shouted(document: str) -> str:
    """The same document with the tags of a careless author: upper case, prefixes without a namespace."""
    bare = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", document)
    return re.sub(r"(</?)(?:\w+:)?(\w+)", lambda tag: f"{tag[1]}X:{tag[2].upper()}", bare)


def deep() -> str:
    return f"{_HEAD}{'<device>' * DEPTH}{'</device>' * DEPTH}"


def growing() -> str:
    """Ten levels of entities that each stand for ten of the level below."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return f'{_HEAD}<!DOCTYPE root [<!ENTITY e0 "x">{levels}]><root><device>&e9;</device></root>'


def giant_piece() -> str:
    """A piece of a description that only ever begins."""
    return "<device><friendlyName>router</friendlyName></device>" * (GIANT_PIECE // 52)


def login_page() -> str:
    return "<!DOCTYPE html><html><head><title>Login<meta charset=utf-8></head><body><form><br></body></html>"


def _device(kind: str, name: str, services: str = "", devices: str = "") -> str:
    listed = f"<serviceList>{services}</serviceList>" if services else ""
    inner = f"<deviceList>{devices}</deviceList>" if devices else ""
    return (
        f"<device><deviceType>{kind}</deviceType><friendlyName>{name}</friendlyName>"
        f"<manufacturer>laboratory</manufacturer><modelName>{name}</modelName>"
        f"<UDN>uuid:6e2f1c1a-0000-4000-8000-00163e112233</UDN>{listed}{inner}</device>"
    )


def _envelope(body: str) -> str:
    return (
        f'{_HEAD}<s:Envelope xmlns:s="{_SOAP}" s:encodingStyle="{_SOAP}"><s:Body>{body}</s:Body></s:Envelope>'
    )

"""A gateway of any temper, as text: it answers the HTTP requests of a client in virtual time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from crowline.portmap.upnp.client import GatewayClient
from crowline.portmap.upnp.events import GatewayEvent, HttpRequest
from crowline.portmap.upnp.gateway_url import GatewayUrl

GATEWAY = "192.168.1.1"
OWN = "192.168.1.7"
OWN_IPV6 = "2001:db8::7"
PUBLIC = "44.1.1.5"
LOCATION = GatewayUrl.parse(f"http://{GATEWAY}:5000/rootDesc.xml", GATEWAY)

V1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
V2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
PPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
FIREWALL = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"


def description(*services: tuple[str, str], base: str = "", root: str = "root") -> bytes:
    """A description with services (type, control URL) where gateways have them, and one of no interest."""
    listed = "".join(
        f"<service><serviceType>{kind}</serviceType><serviceId>x</serviceId>"
        f"<controlURL>{control}</controlURL></service>"
        for kind, control in services
    )
    return (
        f'<?xml version="1.0"?><{root} xmlns="urn:schemas-upnp-org:device-1-0">{base}<device>'
        "<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>"
        "<controlURL>/l3f</controlURL></service></serviceList>"
        "<deviceList><device><deviceList><device><serviceList>"
        f"{listed}</serviceList></device></deviceList></device></deviceList></device></{root}>"
    ).encode()


def success(action: str, service: str, **results: object) -> bytes:
    """The envelope of an action that was done."""
    values = "".join(f"<{name}>{value}</{name}>" for name, value in results.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action}Response xmlns:u="{service}">{values}</u:{action}Response></s:Body></s:Envelope>'
    ).encode()


def fault(code: int) -> bytes:
    """The envelope of a refusal."""
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault>'
        "<faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
        "<errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>"
    ).encode()


class Refuse(Exception):
    """The router says no with that code."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class Router:
    """A well-behaved gateway of version 1; tests change what they want otherwise."""

    services: tuple[tuple[str, str], ...] = ((V1, "/ctl/IPConn"),)
    outside: str = PUBLIC
    entries: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    pinholes: dict[int, dict[str, str]] = field(default_factory=dict)
    firewall: tuple[int, int] = (1, 1)
    before: Callable[[str, dict[str, str]], None] = lambda action, values: None
    """Called before each action; raises `Refuse` for a refusal."""
    rewrite: Callable[[int, bytes], tuple[int, bytes] | None] = lambda status, body: (status, body)
    """What becomes of each answer to an action; ``None`` is silence."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, request: HttpRequest) -> tuple[int, bytes] | None:
        """Status and body; ``None`` for none."""
        if request.method == "GET":
            return 200, description(*self.services)
        headers = dict(request.headers)
        service, _, action = headers["SOAPAction"].strip('"').partition("#")
        assert headers["Content-Type"] == 'text/xml; charset="utf-8"'
        values = dict(re.findall(r"<(New\w+|\w+)>([^<]*)</\1>", request.body.decode()))
        self.asked.append((action, values))
        try:
            self.before(action, values)
            results = getattr(self, f"do_{action}")(values)
        except Refuse as refusal:
            return self.rewrite(500, fault(refusal.code))
        return self.rewrite(200, success(action, service, **results))

    def actions(self) -> list[str]:
        """The names of what was asked."""
        return [action for action, _ in self.asked]

    def do_GetExternalIPAddress(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        return {"NewExternalIPAddress": self.outside}

    def do_AddPortMapping(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        key = (values["NewProtocol"], int(values["NewExternalPort"]))
        if key in self.entries and self.entries[key]["NewInternalClient"] != values["NewInternalClient"]:
            raise Refuse(718)
        self.entries[key] = values
        return {}

    def do_AddAnyPortMapping(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        port = int(values["NewExternalPort"])
        while (values["NewProtocol"], port) in self.entries:
            port += 1
        self.entries[values["NewProtocol"], port] = values
        return {"NewReservedPort": port}

    def do_DeletePortMapping(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        if self.entries.pop((values["NewProtocol"], int(values["NewExternalPort"])), None) is None:
            raise Refuse(714)
        return {}

    def do_GetSpecificPortMappingEntry(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        entry = self.entries.get((values["NewProtocol"], int(values["NewExternalPort"])))
        if entry is None:
            raise Refuse(714)
        names = ("NewInternalPort", "NewInternalClient", "NewEnabled", "NewLeaseDuration")
        return {name: entry[name] for name in names}

    def do_GetFirewallStatus(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        return {"FirewallEnabled": self.firewall[0], "InboundPinholeAllowed": self.firewall[1]}

    def do_AddPinhole(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        identity = len(self.pinholes) + 1
        self.pinholes[identity] = values
        return {"UniqueID": identity}

    def do_UpdatePinhole(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        if int(values["UniqueID"]) not in self.pinholes:
            raise Refuse(704)
        return {}

    def do_DeletePinhole(self, values: dict[str, str]) -> dict[str, object]:  # noqa: N802
        if self.pinholes.pop(int(values["UniqueID"]), None) is None:
            raise Refuse(704)
        return {}


def settle(client: GatewayClient, router: Router, now: float) -> list[GatewayEvent]:
    """Make all requests at once and give the events. Silence takes the time that the client allows."""
    for _ in range(200):
        request = client.next_request()
        if request is None:
            break
        answer = router.answer(request)
        if answer is None:
            client.receive_failure(request.number, now)
        else:
            client.receive_answer(request.number, answer[0], answer[1][: request.limit], now)
    else:
        raise AssertionError("the client asks for ever")
    return events(client)


def events(client: GatewayClient) -> list[GatewayEvent]:
    found = []
    while (event := client.next_event()) is not None:
        found.append(event)
    return found


def started(router: Router) -> GatewayClient:
    """A client that knows the router; its first events are taken."""
    client = GatewayClient(LOCATION, entropy=lambda count: b"\x07" * count)
    client.start(0.0)
    settle(client, router, 0.0)
    return client

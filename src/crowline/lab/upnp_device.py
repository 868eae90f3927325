"""A UPnP Internet Gateway Device of any temper, sans-IO: it answers searches and HTTP requests.

It works on the `Nat` of the same box. A host may map ports for itself alone; of several outside ports that
lead to one inside port, the box keeps the latest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from math import inf

from crowline.base.addresses import Address
from crowline.lab import upnp_documents as documents
from crowline.lab.behaviour import TCP, UDP
from crowline.lab.nat import Nat
from crowline.lab.router_temper import PLAIN, WEEK, XML_TYPE, Document, Temper
from crowline.lab.upnp_http import HttpAsked, HttpReply
from crowline.portmap.upnp.upnp_error import UpnpError

SSDP_PORT = 1900
HTTP_PORT = 5000
FIRST_CHOSEN_PORT = 1024  # what AddAnyPortMapping begins to look at, where the wanted port is not free

_PROTOCOLS = {"UDP": UDP, "TCP": TCP}
_NAMES = {number: name for name, number in _PROTOCOLS.items()}
_ARGUMENT = re.compile(r"<(New\w+)>([^<]*)</\1>|<(New\w+)\s*/>")


@dataclass(frozen=True, slots=True)
class SearchReply:
    """A datagram that answers a search, and the host that it comes from."""

    data: bytes
    host: str


@dataclass(slots=True)
class _Mapping:
    inside: Address
    description: str
    lease: int
    expires: float
    forgotten: float


class _Refused(Exception):
    def __init__(self, code: UpnpError) -> None:
        super().__init__(code.words)
        self.code = code


class UpnpDevice:
    """One gateway, whose inside address is `host`. `now` at construction is when the box started.

    `counters` says how often each action was asked for, and "search" and "description".
    """

    def __init__(
        self,
        nat: Nat,
        host: str,
        temper: Temper = PLAIN,
        *,
        entropy: Callable[[int], bytes],
        now: float = 0.0,
        http_port: int = HTTP_PORT,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.temper = temper
        self.http = Address(host, http_port)
        self._nat = nat
        self._entropy = entropy
        self._started = now
        self._boots = 1
        self._mappings: dict[tuple[int, int], _Mapping] = {}

    @property
    def location(self) -> str:
        """The URL of the description, as searches are told."""
        host = self.temper.location_host or self.http.host
        return f"http://{Address(host, self.http.port)}{documents.DESCRIPTION_URL}"

    def mappings(self, now: float) -> dict[tuple[int, int], Address]:
        """What is open: the inside address for each protocol and outside port."""
        self._drop_expired(now)
        return {key: mapping.inside for key, mapping in self._mappings.items()}

    def restart(self, now: float) -> None:
        """Lose every mapping, as a box does that was switched off."""
        for key in list(self._mappings):
            self._close(key)
        self._started = now
        self._boots += 1

    # --- SSDP -----------------------------------------------------------------------------------------

    def search(self, data: bytes) -> list[SearchReply]:
        """What is answered to a datagram of the search port; nothing where it is no search for us."""
        first, _, rest = data.decode("latin-1").partition("\r\n")
        fields = {}
        for line in rest.split("\r\n"):
            name, _, value = line.partition(":")
            fields[name.strip().upper()] = value.strip()
        target = fields.get("ST", "")
        if first != "M-SEARCH * HTTP/1.1" or fields.get("MAN") != '"ssdp:discover"':
            return []
        if target not in self._targets():
            return []
        self.counters["search"] += 1
        reply = SearchReply(self._search_answer(target), self.temper.speaks_from or self.http.host)
        return [reply] * self.temper.repeats

    def _targets(self) -> set[str]:
        versions = range(1, self.temper.version + 1)
        devices = (documents.DEVICE, documents.WAN_DEVICE, documents.WAN_CONNECTION_DEVICE)
        kinds = (*devices, self._service)
        return {"upnp:rootdevice", "ssdp:all"} | {f"{kind}:{n}" for kind in kinds for n in versions}

    @property
    def _service(self) -> str:
        return documents.WAN_PPP if self.temper.is_ppp else documents.WAN_IP

    def _search_answer(self, target: str) -> bytes:
        lines = [
            "HTTP/1.1 200 OK",
            "CACHE-CONTROL: max-age=120",
            f"ST: {target}",
            f"USN: uuid:6e2f1c1a-0000-4000-8000-00163e112233::{target}",
            "EXT:",
            "SERVER: laboratory UPnP/1.1",
            f"LOCATION: {self.location}",
            f"BOOTID.UPNP.ORG: {self._boots}",
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    # --- HTTP -----------------------------------------------------------------------------------------

    def answer(self, request: HttpAsked, client: str, now: float) -> HttpReply | None:
        """What the host `client` is answered; ``None``: the connection stays open, and silent."""
        temper = self.temper
        if temper.is_silent:
            return None
        if temper.redirect:
            return HttpReply(302, (("Location", temper.redirect),), delay=temper.delay)
        if request.method == "GET" and request.target == documents.DESCRIPTION_URL:
            self.counters["description"] += 1
            return self._description()
        if request.method == "POST" and request.target == documents.CONTROL_URL:
            return self._act(request, client, now)
        return self._reply(404, "")

    def _description(self) -> HttpReply:
        kind = self.temper.document
        plain = documents.description(self.temper.version, "laboratory router", self._service)
        if kind is Document.PLAIN:
            return self._reply(200, plain)
        if kind in (Document.GIANT, Document.HALF):
            is_endless = kind is Document.GIANT
            body = documents.giant_piece() if is_endless else plain
            headers = (("Content-Type", XML_TYPE),)
            return HttpReply(200, headers, body.encode(), is_endless=is_endless, is_cut=not is_endless)
        texts = {
            Document.DEEP: documents.deep,
            Document.ENTITIES: documents.growing,
            Document.LOGIN_PAGE: documents.login_page,
        }
        return self._reply(200, texts[kind]())

    def _reply(self, status: int, text: str) -> HttpReply:
        if self.temper.shouts:
            text = documents.shouted(text)
        headers = (("Content-Type", self.temper.content_type), ("EXT", ""))
        return HttpReply(status, headers, text.encode(), self.temper.delay)

    def _act(self, request: HttpAsked, client: str, now: float) -> HttpReply:
        service, _, action = request.headers.get("soapaction", "").strip('"').partition("#")
        self.counters[action] += 1
        self._drop_expired(now)
        found = _ARGUMENT.findall(request.body.decode("utf-8", "replace"))
        values = {name or empty: unescape(value) for name, value, empty in found}
        try:
            results = self._do(action, values, client, now)
        except _Refused as refusal:
            return self._reply(500, documents.fault(refusal.code, refusal.code.words))
        return self._reply(200, documents.success(action, service, results))

    # --- actions --------------------------------------------------------------------------------------

    def _do(self, action: str, values: dict[str, str], client: str, now: float) -> dict[str, object]:
        if action == "GetExternalIPAddress":
            return {"NewExternalIPAddress": self.temper.outside or self._nat.external_host}
        if action == "GetStatusInfo":
            uptime = int(now - self._started)
            return {
                "NewConnectionStatus": "Connected",
                "NewLastConnectionError": "ERROR_NONE",
                "NewUptime": uptime,
            }
        if action == "GetGenericPortMappingEntry":
            return self._entry_at(_number(values, "NewPortMappingIndex"), now)
        if action == "AddPortMapping":
            self._add(values, client, _number(values, "NewExternalPort"), now)
            return {}
        if action == "AddAnyPortMapping" and self.temper.version >= 2:
            return {"NewReservedPort": self._add_any(values, client, now)}
        key = _key(values) if action in ("DeletePortMapping", "GetSpecificPortMappingEntry") else None
        if key is None:
            raise _Refused(UpnpError.INVALID_ACTION)
        if key not in self._mappings:
            raise _Refused(UpnpError.NO_SUCH_ENTRY)
        if action == "GetSpecificPortMappingEntry":
            return self._entry(self._mappings[key], now)
        if self._mappings[key].inside.host != client:
            raise _Refused(UpnpError.NOT_AUTHORIZED)
        self._close(key)
        return {}

    def _add_any(self, values: dict[str, str], client: str, now: float) -> int:
        """The wanted port where it is free, or else a random one that is."""
        port = _number(values, "NewExternalPort")
        for _ in range(100):
            try:
                if self.temper.other_ports:
                    port = self._draw()
                self._add(values, client, port, now)
            except _Refused as refusal:
                if refusal.code is not UpnpError.CONFLICT:
                    raise
                port = self._draw()
            else:
                return port
        raise _Refused(UpnpError.NO_PORTS_AVAILABLE)

    def _draw(self) -> int:
        span = 65536 - FIRST_CHOSEN_PORT
        return FIRST_CHOSEN_PORT + int.from_bytes(self._entropy(4), "big") % span

    def _add(self, values: dict[str, str], client: str, outside: int, now: float) -> None:
        temper = self.temper
        protocol, _ = _key(values)
        inside = Address(values.get("NewInternalClient", ""), _number(values, "NewInternalPort"))
        lease = _number(values, "NewLeaseDuration")
        if not temper.allows or inside.host != client:
            raise _Refused(UpnpError.NOT_AUTHORIZED)
        if values.get("NewRemoteHost"):
            raise _Refused(UpnpError.REMOTE_HOST_ONLY_WILDCARD)
        if outside == 0:
            raise _Refused(UpnpError.EXTERNAL_PORT_WILDCARD)
        if lease and not temper.has_leases:
            raise _Refused(UpnpError.ONLY_PERMANENT_LEASES)
        if temper.same_ports and outside != inside.port:
            raise _Refused(UpnpError.SAME_PORTS_REQUIRED)
        self._check_free((protocol, outside), inside)
        self._open((protocol, outside), inside, self._granted(lease), values, now)

    def _check_free(self, key: tuple[int, int], inside: Address) -> None:
        """Another host's port, or one's own where the box does not renew."""
        known = self._mappings.get(key)
        if known is not None and (known.inside != inside or not self.temper.renews):
            raise _Refused(UpnpError.CONFLICT)
        if key[1] < self.temper.taken_below:
            raise _Refused(UpnpError.CONFLICT)

    def _granted(self, lease: int) -> int:
        """Version 2 has no mappings without an end."""
        if lease == 0 and self.temper.version == 1:
            return 0
        return min(lease or WEEK, self.temper.longest_lease)

    def _open(
        self, key: tuple[int, int], inside: Address, lease: int, values: dict[str, str], now: float
    ) -> None:
        protocol, outside = key
        for other, mapping in list(self._mappings.items()):
            if other[0] == protocol and mapping.inside == inside and other != key:
                self._close(other)
        expires = now + lease if lease else inf
        forgotten = inf if self.temper.forgets_after is None else now + self.temper.forgets_after
        ends = min(expires, forgotten) - now
        if self.temper.opens:
            opened = self._nat.forward(protocol, inside, ends, now, suggested=outside, exactly=True)
            if opened is None:
                raise _Refused(UpnpError.CONFLICT)
        description = values.get("NewPortMappingDescription", "")
        self._mappings[key] = _Mapping(inside, description, lease, expires, forgotten)

    def _close(self, key: tuple[int, int]) -> None:
        mapping = self._mappings.pop(key)
        self._nat.unforward(key[0], mapping.inside)

    def _drop_expired(self, now: float) -> None:
        for key, mapping in list(self._mappings.items()):
            if min(mapping.expires, mapping.forgotten) <= now:
                self._close(key)

    def _entry_at(self, index: int, now: float) -> dict[str, object]:
        keys = list(self._mappings)
        if index >= len(keys):
            raise _Refused(UpnpError.ARRAY_INDEX_INVALID)
        protocol, port = keys[index]
        named = {"NewRemoteHost": "", "NewExternalPort": port, "NewProtocol": _NAMES[protocol]}
        return named | self._entry(self._mappings[keys[index]], now)

    def _entry(self, mapping: _Mapping, now: float) -> dict[str, object]:
        return {
            "NewInternalPort": mapping.inside.port,
            "NewInternalClient": mapping.inside.host,
            "NewEnabled": 1,
            "NewPortMappingDescription": mapping.description,
            "NewLeaseDuration": 0 if mapping.expires == inf else int(mapping.expires - now),
        }


def _key(values: dict[str, str]) -> tuple[int, int]:
    protocol = _PROTOCOLS.get(values.get("NewProtocol", ""))
    if protocol is None:
        raise _Refused(UpnpError.INVALID_ARGUMENTS)
    return protocol, _number(values, "NewExternalPort")


def _number(values: dict[str, str], name: str) -> int:
    text = values.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise _Refused(UpnpError.INVALID_ARGUMENTS)
    return int(text)

"""The WebSocket of a virtual peer to the hub, through the site's proxy where it has one."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.lab.virtual import Internet
from crowline.lab.virtual_proxy import ESTABLISHED, VirtualProxy, connect_request
from crowline.lab.virtual_server import BINARY, TEXT
from crowline.lab.virtual_site import PROXY_PORT, VirtualSite
from crowline.lab.virtual_tcp import TcpHost


class VirtualHubStream:
    """Messages of the hub go to `on_text` and `on_binary`; what is sent waits for the connection."""

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        hub: Address,
        *,
        on_text: Callable[[bytes], None],
        on_binary: Callable[[bytes], None],
        on_closed: Callable[[str], None],
    ) -> None:
        self.hub = hub
        self._on_text, self._on_binary, self._on_closed = on_text, on_binary, on_closed
        self._proxied = site.proxy is not None
        target = hub
        if site.proxy is not None:
            target = Address(next(iter(site.proxy.networks)), PROXY_PORT)
            VirtualProxy(internet, site.proxy, target)
        local = site.address_like(target.host) or site.addresses[0]
        self.tcp = TcpHost(internet, site.host)
        self._connection = self.tcp.connect(target, Address(local, 0), self)
        self._waiting: list[bytes] = []
        if self._proxied:
            self._connection.send(connect_request(hub))

    def send_text(self, data: bytes) -> None:
        self._send(TEXT + data)

    def send_binary(self, data: bytes) -> None:
        self._send(BINARY + data)

    def on_open(self) -> None:
        """What waited has been sent by the connection itself."""

    def on_message(self, data: bytes) -> None:
        if self._proxied:
            self._on_proxy_answer(data)
        elif data[:1] == TEXT:
            self._on_text(data[1:])
        else:
            self._on_binary(data[1:])

    def on_closed(self, reason: str) -> None:
        self._on_closed(reason)

    def _on_proxy_answer(self, data: bytes) -> None:
        self._proxied = False
        if data != ESTABLISHED:
            self._connection.close()
            self._on_closed("refused by the proxy")
            return
        for message in self._waiting:
            self._connection.send(message)

    def _send(self, message: bytes) -> None:
        if self._proxied:
            self._waiting.append(message)
        else:
            self._connection.send(message)

"""An HTTP proxy of a virtual site: CONNECT to port 443, then bytes both ways (RFC 9110 §9.3.6)."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.lab.boundary import HTTPS
from crowline.lab.network import Host
from crowline.lab.virtual import Internet
from crowline.lab.virtual_tcp import Connection, TcpHost

ESTABLISHED = b"200"
REFUSED = b"403"


class VirtualProxy:
    """Listens at `address`, on a host that may leave the site."""

    def __init__(self, internet: Internet, host: Host, address: Address) -> None:
        self.address = address
        self._tcp = TcpHost(internet, host)
        self._tcp.listen(address, self._accept)

    def connect(self, connection: Connection, target: str) -> Connection | None:
        """The connection onwards for `connection`; ``None`` for a port that is not served."""
        host, _, port = target.rpartition(":")
        if port != str(HTTPS):
            return None
        onward = _Onward(connection)
        return self._tcp.connect(Address(host, HTTPS), Address(self.address.host, 0), onward)

    def _accept(self, connection: Connection) -> None:
        connection.stream = _Client(self, connection)


class _Client:
    """What comes from the client: the request, then what is passed on."""

    def __init__(self, proxy: VirtualProxy, connection: Connection) -> None:
        self._proxy = proxy
        self._connection = connection
        self._onward: Connection | None = None

    def on_open(self) -> None:
        """The client speaks first."""

    def on_message(self, data: bytes) -> None:
        if self._onward is not None:
            self._onward.send(data)
            return
        target = data.decode(errors="replace").removeprefix("CONNECT ")
        self._onward = self._proxy.connect(self._connection, target)
        if self._onward is None:
            self._connection.send(REFUSED)
            self._connection.close()

    def on_closed(self, reason: str) -> None:
        if self._onward is not None:
            self._onward.close()


class _Onward:
    """What comes from the server goes to the client."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def on_open(self) -> None:
        self._client.send(ESTABLISHED)

    def on_message(self, data: bytes) -> None:
        self._client.send(data)

    def on_closed(self, reason: str) -> None:
        self._client.close()


def connect_request(target: Address) -> bytes:
    """What a client sends first."""
    return f"CONNECT {target.host}:{target.port}".encode()

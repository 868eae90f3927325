"""The inside address of a virtual site's translator, where hosts ask for ports."""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.nat import Nat
from crowline.lab.network import Network, Packet
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN, Temper
from crowline.lab.upnp_device import SSDP_PORT, UpnpDevice
from crowline.lab.upnp_http import read_request
from crowline.lab.virtual import Internet
from crowline.lab.virtual_tcp import Connection, TcpHost


class VirtualGateway:
    """Speaks what `kind` says, with that temper, at `host` inside `network`."""

    def __init__(
        self,
        internet: Internet,
        network: Network,
        nat: Nat,
        host: str,
        kind: PortMapping,
        temper: Temper = PLAIN,
    ) -> None:
        self.host = host
        self.service: PortMappingService | None = None
        self.device: UpnpDevice | None = None
        self._internet = internet
        self._places = {host: internet.host(host, network)}
        if temper.speaks_from:
            self._places[temper.speaks_from] = internet.host(temper.speaks_from, network)
        if kind is PortMapping.UPNP:
            random = internet.random
            self.device = UpnpDevice(nat, host, temper, entropy=random.randbytes, now=internet.now)
            internet.listen(self._places[host], Address(host, SSDP_PORT), self._searched)
            TcpHost(internet, self._places[host]).listen(self.device.http, self._connected)
        elif kind in (PortMapping.NAT_PMP, PortMapping.PCP):
            self.service = PortMappingService(nat, kind, internet.now, temper)
            node = internet.attach(self.service)
            for each, place in self._places.items():
                internet.bind(node, place, Address(each, PORT))
        else:
            raise UsageError("a gateway that speaks nothing is none")

    def restart(self) -> None:
        """Forget every port, as a box does that was switched off."""
        for part in (self.service, self.device):
            if part is not None:
                part.restart(self._internet.now)

    def _searched(self, packet: Packet) -> None:
        assert self.device is not None
        for reply in self.device.search(packet.data):
            answer = Packet.udp(Address(reply.host, SSDP_PORT), packet.source, reply.data)
            self._internet.launch(self._places[reply.host], answer)

    def _connected(self, connection: Connection) -> None:
        assert self.device is not None
        connection.stream = _Exchange(self._internet, self.device, connection)


class _Exchange:
    """One connection: a request, and its answer. Both are one message each."""

    def __init__(self, internet: Internet, device: UpnpDevice, connection: Connection) -> None:
        self._internet = internet
        self._device = device
        self._connection = connection

    def on_open(self) -> None:
        """The client speaks first."""

    def on_message(self, data: bytes) -> None:
        request = read_request(data)
        if request is None:
            return
        reply = self._device.answer(request, self._connection.remote.host, self._internet.now)
        if reply is not None:
            self._internet.call_at(self._internet.now + reply.delay, self._answer, reply.encode())

    def on_closed(self, reason: str) -> None:
        """What is still to be answered goes nowhere."""

    def _answer(self, data: bytes) -> None:
        self._connection.send(data)
        self._connection.close()

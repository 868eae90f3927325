"""The self-test's bench in virtual time: one site, two hosts in it, two servers, and no waiting."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.lab.address_plan import AddressPlan, server_addresses
from crowline.lab.bench import Answer, Arrival
from crowline.lab.boundary import embedded
from crowline.lab.network import Host, Packet
from crowline.lab.profile import Ipv6, Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_site import build_site
from crowline.lab.virtual_tcp import Connection, TcpHost

SETTLE_TIME = 1.0  # seconds: longer than any packet is on its way
CONNECT_TIME = 30.0  # seconds until a TCP connection has come about or been given up

_ANSWERS = {"refused": Answer.RST, "unreachable": Answer.ICMP, "timed out": Answer.SILENCE}


@dataclass(slots=True)
class VirtualEndpoint:
    """A UDP socket of a virtual host."""

    internet: Internet
    host: Host
    local: Address
    arrivals: list[Arrival] = field(default_factory=list)

    def send(self, data: bytes, to: Address) -> None:
        self.internet.launch(self.host, Packet.udp(self.local, to, data))

    def take(self) -> list[Arrival]:
        taken, self.arrivals = self.arrivals, []
        return taken

    def received(self, packet: Packet) -> None:
        self.arrivals.append(Arrival(packet.data, packet.source))


class VirtualBench:
    """Builds the place that `profile` describes. The same seed gives the same run."""

    def __init__(self, profile: Profile, seed: int = 0) -> None:
        self._internet = Internet(seed)
        self._is_nat64 = profile.ipv6 is Ipv6.NAT64
        site = build_site(self._internet, profile, 1)
        # The site's second host of the plan may be its proxy; the third one is free.
        plan = AddressPlan(1, hosts=3, with_ipv6=profile.ipv6 is not Ipv6.NONE)
        own = site.host.networks[site.addresses[0]]
        hosts = plan.inside if profile.nats else plan.public
        neighbour = plan.ipv6[2] if self._is_nat64 else hosts[2][0]
        second = self._internet.host(neighbour, own if profile.nats else None)
        self.external_host = plan.outside if profile.nats else site.addresses[0]
        self._hosts = [site.host, second]
        self._servers = [self._server(number) for number in (1, 2)]
        self._endpoints: dict[Address, VirtualEndpoint] = {}
        self._listening: dict[Address, list[Connection]] = {}
        self._tcp = {id(host): TcpHost(self._internet, host) for host in (*self._hosts, *self._servers)}

    @property
    def now(self) -> float:
        return self._internet.now

    def inside(self, host: int, port: int, *, ipv6: bool = False) -> VirtualEndpoint | None:
        local = self._address(self._hosts[host], ipv6=ipv6 or self._is_nat64)
        return None if local is None else self._endpoint(self._hosts[host], Address(local, port))

    def outside(self, server: int, port: int, *, ipv6: bool = False) -> VirtualEndpoint:
        return self._endpoint(self._servers[server], Address(self._server_host(server, ipv6=ipv6), port))

    def named(self, address: Address) -> Address:
        return embedded(address) if self._is_nat64 else address

    def settle(self) -> None:
        self._internet.run(limit=SETTLE_TIME)

    def pass_time(self, seconds: float) -> None:
        end = self._internet.now + seconds
        self._internet.call_at(end, lambda: None)
        self._internet.run(lambda: self._internet.now >= end, limit=seconds)

    def connect_out(self, host: int, port: int, server: int, server_port: int) -> Address | None:
        there = Address(self._server_host(server), server_port)
        accepted = self._listen(server, there)
        before = len(accepted)
        local = self._address(self._hosts[host], ipv6=self._is_nat64)
        if local is None:
            return None
        attempt = _Attempt()
        tcp = self._tcp[id(self._hosts[host])]
        connection = tcp.connect(self.named(there), Address(local, port), attempt)
        self._internet.run(lambda: attempt.answer is not None, limit=CONNECT_TIME)
        if attempt.answer is not Answer.ACCEPTED:
            connection.close()
            return None
        return accepted[before].remote

    def connect_in(self, server: int, to: Address) -> Answer:
        attempt = _Attempt()
        tcp = self._tcp[id(self._servers[server])]
        connection = tcp.connect(to, Address(self._server_host(server), 0), attempt)
        self._internet.run(lambda: attempt.answer is not None, limit=CONNECT_TIME)
        connection.close()
        return attempt.answer or Answer.SILENCE

    def _server(self, number: int) -> Host:
        ipv4, ipv6 = server_addresses(number, 1)
        host = self._internet.host(ipv4)
        self._internet.add_address(host, ipv6)
        return host

    def _server_host(self, server: int, *, ipv6: bool = False) -> str:
        return server_addresses(server + 1, 1)[1 if ipv6 else 0]

    def _address(self, host: Host, *, ipv6: bool) -> str | None:
        return next((address for address in host.networks if (":" in address) == ipv6), None)

    def _endpoint(self, host: Host, local: Address) -> VirtualEndpoint:
        endpoint = self._endpoints.get(local)
        if endpoint is None:
            endpoint = self._endpoints[local] = VirtualEndpoint(self._internet, host, local)
            self._internet.listen(host, local, endpoint.received)
        return endpoint

    def _listen(self, server: int, there: Address) -> list[Connection]:
        """The connections that came to that address of a server, oldest first."""
        accepted = self._listening.get(there)
        if accepted is None:
            accepted = self._listening[there] = []
            self._tcp[id(self._servers[server])].listen(there, accepted.append)
        return accepted


class _Attempt:
    """Hears how an attempt to connect ends."""

    def __init__(self) -> None:
        self.answer: Answer | None = None

    def on_open(self) -> None:
        self.answer = Answer.ACCEPTED

    def on_message(self, data: bytes) -> None:
        pass

    def on_closed(self, reason: str) -> None:
        self.answer = self.answer or _ANSWERS.get(reason, Answer.ICMP)

"""A server with the four addresses of RFC 5780, and a discovery behind any translator, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.nat64 import Nat64Prefix
from crowline.lab.boundary import embedded
from crowline.lab.profile import Ipv6, Profile
from crowline.lab.virtual import Internet, Node
from crowline.lab.virtual_site import build_site
from crowline.stun.message import is_stun
from crowline.stun.nat_discovery import BasesWanted, Discovered, Foreseen, NatDiscovery
from crowline.stun.nat_findings import Findings
from crowline.stun.responder import Alternates, Responder

SERVER, OTHER = Address("44.1.0.1", 3478), Address("44.1.0.2", 3479)
SERVER6, OTHER6 = Address("2a01:100:0:1::1", 3478), Address("2a01:100:0:1::2", 3479)
PREFIX = Nat64Prefix.parse("64:ff9b::/96")


class Run:
    """One discovery: `findings` when it ended, `seconds` it took, `sent` packets."""

    def __init__(self, internet: Internet, node: Node, discovery: NatDiscovery) -> None:
        self.internet, self.node, self.discovery = internet, node, discovery
        self.sent: list[Transmit] = []

    @property
    def findings(self) -> Findings:
        event = self.node.events[-1][1]
        assert isinstance(event, Discovered)
        return event.findings

    @property
    def seconds(self) -> float:
        return self.node.events[-1][0]

    @property
    def foreseen(self) -> tuple[float, Findings] | None:
        """What was foreseen, and when."""
        early = [(time, event.findings) for time, event in self.node.events if isinstance(event, Foreseen)]
        assert len(early) == len(self.node.events) - 1 <= 1
        return early[0] if early else None


class _Spy:
    """A discovery whose packets are counted on their way out."""

    def __init__(self, discovery: NatDiscovery) -> None:
        self.inner = discovery
        self.run: Run | None = None

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        assert is_stun(data)
        self.inner.receive(data, source, now, local)

    def handle_timeout(self, now: float) -> None:
        self.inner.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self.inner.next_timeout()

    def next_transmit(self) -> Transmit | None:
        transmit = self.inner.next_transmit()
        if transmit is not None and self.run is not None:
            self.run.sent.append(transmit)
        return transmit

    def next_event(self) -> object:
        return self.inner.next_event()


def add_server(internet: Internet, *, alternates: bool = True, ports: int = 2) -> None:
    """On IPv4 and IPv6; without alternates one address of each answers, as most servers do."""
    for primary, other in ((SERVER, OTHER), (SERVER6, OTHER6)):
        machine = Responder(Alternates(primary, other) if alternates else None)
        node = internet.attach(machine)
        for address in (primary.host, other.host) if alternates else (primary.host,):
            host = internet.host(address)
            for port in (primary.port, other.port)[:ports]:
                internet.bind(node, host, Address(address, port))


def add_plain_server(internet: Internet, address: Address) -> None:
    """Another one, of somebody else."""
    internet.bind(internet.attach(Responder()), internet.host(address.host), address)


def discover(
    profile: Profile,
    *,
    seed: int = 1,
    ipv6: bool = False,
    alternates: bool = True,
    ports: int = 1,
    others: Sequence[Address] = (),
    mute: Sequence[Address] = (),
    loss: float = 0.0,
    delay: float = 0.02,
    foresees: bool = False,
    bases: int | None = None,
) -> Run:
    """Let a host behind `profile` ask, until it is over.

    Without `alternates` the server has so many `ports`. `others` are further servers; the `mute` ones of them
    are not there.
    """
    internet = Internet(seed, loss=loss, delay=delay)
    add_server(internet, alternates=alternates, ports=2 if alternates else ports)
    for each in others:
        if each not in mute and each.host != SERVER.host:
            add_plain_server(internet, each)
    site = build_site(internet, profile, 7)
    server, prefix = (SERVER6 if ipv6 else SERVER), None
    if profile.ipv6 is Ipv6.NAT64:
        server, prefix = embedded(SERVER), PREFIX
    own = site.address_like(server.host)
    assert own is not None
    discovery = NatDiscovery(
        server, entropy=internet.random.randbytes, prefix=prefix, others=others, foresees=foresees
    )
    spy = _Spy(discovery)
    node = internet.attach(spy)
    run = spy.run = Run(internet, node, discovery)
    wanted = discovery.next_event()
    assert isinstance(wanted, BasesWanted)
    ports = internet.random.sample(range(20000, 60000), wanted.count if bases is None else bases)
    sockets = tuple(Address(own, port) for port in ports)
    for socket in sockets:
        internet.bind(node, site.host, socket)
    discovery.start(sockets, internet.now)
    internet.poke(node)
    assert internet.run(lambda: bool(node.events) and isinstance(node.events[-1][1], Discovered), limit=10.0)
    assert discovery.next_timeout() is None
    return run

"""What the server of the virtual internet says to those who want to know their translator."""

from __future__ import annotations

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.lab.presets import PRESETS
from crowline.lab.virtual import Internet
from crowline.lab.virtual_server import STUN_PORT, STUN_PORTS, VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.lab.virtual_tcp import TcpHost
from crowline.stun.client import BindingClient, Mapped
from crowline.stun.nat_discovery import BasesWanted, Discovered, NatDiscovery
from crowline.stun.nat_findings import Facet, Filtering, Findings, Mapping, Reason


def discover(preset: str, *, alternates: bool) -> tuple[VirtualServer, Findings]:
    internet = Internet(3)
    server = VirtualServer(internet, alternates=alternates)
    site = build_site(internet, PRESETS[preset], 1)
    own = site.address_like(server.ipv4)
    assert own is not None
    discovery = NatDiscovery(Address(server.ipv4, STUN_PORT), entropy=internet.random.randbytes)
    node = internet.attach(discovery)
    wanted = discovery.next_event()
    assert isinstance(wanted, BasesWanted)
    bases = tuple(Address(own, port) for port in internet.random.sample(range(20000, 60000), wanted.count))
    for base in bases:
        internet.bind(node, site.host, base)
    discovery.start(bases, internet.now)
    internet.poke(node)
    assert internet.run(lambda: bool(node.events), limit=5.0)
    ((_, event),) = node.events
    assert isinstance(event, Discovered)
    return server, event.findings


def test_with_a_second_address_it_shows_mapping_and_filtering() -> None:
    """As a server with `--alternate-address`: all four addresses of RFC 5780."""
    server, found = discover("address-dependent", alternates=True)
    assert (found.mapping, found.filtering) == (Mapping.ADDRESS_DEPENDENT, Filtering.ADDRESS_DEPENDENT)
    assert found.other is not None
    assert found.other.host != server.ipv4
    assert found.other.port == STUN_PORTS[1]


def test_without_one_it_says_so() -> None:
    """As a server without options: no second address is named, and filtering stays unknown."""
    _, found = discover("address-dependent", alternates=False)
    assert found.other is None
    assert found.unknown[Facet.FILTERING] is Reason.ONE_ADDRESS


class Asking:
    """A connection on which one Binding request leaves."""

    def __init__(self, client: TcpHost, local: Address, remote: Address) -> None:
        self.mapped: Address | None = None
        self._client = BindingClient(entropy=client.internet.random.randbytes)
        self._remote = remote
        self._internet = client.internet
        self._connection = client.connect(remote, local, self)

    def on_open(self) -> None:
        self._client.query(self._remote, self._internet.now, transport=Transport.TCP)
        request = self._client.next_transmit()
        assert request is not None
        self._connection.send(bytes(request.data))

    def on_message(self, data: bytes) -> None:
        self._client.receive(data, self._remote, self._internet.now)
        event = self._client.next_event()
        assert isinstance(event, Mapped)
        self.mapped = event.address

    def on_closed(self, reason: str) -> None:
        raise AssertionError(reason)


@pytest.mark.parametrize("alternates", [True, False])
@pytest.mark.parametrize(("preset", "is_one"), [("home", True), ("symmetric", False)])
def test_every_address_answers_by_tcp(alternates: bool, preset: str, is_one: bool) -> None:
    """Both ports of each address, so that the mapping of a TCP port shows."""
    internet = Internet(4)
    server = VirtualServer(internet, alternates=alternates)
    site = build_site(internet, PRESETS[preset], 1)
    client = TcpHost(internet, site.host)
    hosts = [host for host in server.host.networks if ":" not in host]
    assert len(hosts) == 1 + alternates
    local = Address(site.addresses[0], 40000)
    asked = [Asking(client, local, Address(host, port)) for host in hosts for port in STUN_PORTS]
    assert internet.run(lambda: all(each.mapped is not None for each in asked), limit=5.0)
    assert len({each.mapped for each in asked}) == (1 if is_one else len(asked))

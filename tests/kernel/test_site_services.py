"""Ports opened by asking the gateway, ways out through a proxy, hosts without IPv4: with packets."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from crowline.base.errors import LocalProblem
from crowline.lab import nat64
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host, Site
from crowline.lab.presets import PRESETS
from crowline.lab.profile import PortMapping
from crowline.lab.site_services import PORT_MAPPING_PORT
from needs import needs_program

Factory = Callable[..., Internet]

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
PATIENCE = 30.0  # seconds for what must arrive
SILENCE = 0.15  # seconds in which what must not arrive would have, several times over
OPENED, STRANGER_PORT = 6000, 7777
BY_WHOM = pytest.mark.parametrize(
    "translator", [pytest.param("kernel", marks=pytest.mark.peer), "user"], ids=["miniupnpd", "wire"]
)


def mapping_site(net: Internet, service: PortMapping) -> tuple[Host, Site, str]:
    """A server, a home with that service, and the inside address of its gateway."""
    server, site = net.server(), net.site(replace(PRESETS["home"], port_mapping=service), delay=0.001)
    return server, site, site.hosts[0].addresses[0].rpartition(".")[0] + ".1"


@pytest.fixture(autouse=True)
def programs(request: pytest.FixtureRequest) -> None:
    """miniupnpd for the tests that are marked so."""
    if request.node.get_closest_marker("peer"):
        needs_program("miniupnpd")


def assert_open(net: Internet, server: Host, site: Site, inside: socket.socket, outside_port: int) -> None:
    """A stranger's datagram to the outside port reaches the inside socket."""
    inside.settimeout(PATIENCE)
    with closing(net.socket(server, UDP, port=STRANGER_PORT)) as stranger:
        stranger.sendto(b"unasked", (site.outside[0], outside_port))
        assert inside.recvfrom(100) == (b"unasked", (server.addresses[0], STRANGER_PORT))


def assert_closed(net: Internet, server: Host, site: Site, inside: socket.socket) -> None:
    """Before anybody asked for it, nothing gets in."""
    inside.settimeout(SILENCE)
    with closing(net.socket(server, UDP, port=STRANGER_PORT)) as stranger:
        stranger.sendto(b"too early", (site.outside[0], OPENED))
        with pytest.raises(TimeoutError):
            inside.recv(100)


def ask(net: Internet, host: Host, request: bytes, to: tuple[str, int]) -> bytes:
    with closing(net.socket(host, UDP)) as asker:
        asker.settimeout(PATIENCE)
        asker.sendto(request, to)
        return asker.recv(2000)


@BY_WHOM
@pytest.mark.parametrize("service", [PortMapping.NAT_PMP, PortMapping.PCP], ids=lambda each: each.value)
def test_a_port_is_opened_by_nat_pmp(internet: Factory, translator: str, service: PortMapping) -> None:
    """RFC 6886: the outside address is told, the mapping is made, strangers get in by it."""
    net = internet(translator)
    server, site, gateway = mapping_site(net, service)
    with closing(net.socket(site.hosts[0], UDP, port=OPENED)) as inside:
        assert_closed(net, server, site, inside)
        answer = ask(net, site.hosts[0], b"\0\0", (gateway, PORT_MAPPING_PORT))
        assert answer[:4] == b"\0\x80\0\0" and socket.inet_ntoa(answer[8:12]) == site.outside[0]
        request = struct.pack("!BBHHHI", 0, 1, 0, OPENED, OPENED, 3600)
        answer = ask(net, site.hosts[0], request, (gateway, PORT_MAPPING_PORT))
        version, operation, result, _, private, public, lifetime = struct.unpack("!BBHIHHI", answer)
        assert (version, operation, result, private, lifetime) == (0, 129, 0, OPENED, 3600)
        assert_open(net, server, site, inside, public)


@BY_WHOM
def test_a_port_is_opened_by_pcp(internet: Factory, translator: str) -> None:
    """RFC 6887: MAP gives an outside address and port, and strangers get in by it."""
    net = internet(translator)
    server, site, gateway = mapping_site(net, PortMapping.PCP)
    client = b"\0" * 10 + b"\xff\xff" + socket.inet_aton(site.hosts[0].addresses[0])
    nonce = os.urandom(12)
    request = struct.pack("!BBHI16s", 2, 1, 0, 3600, client)
    request += struct.pack("!12sB3xHH16s", nonce, 17, OPENED, 0, b"\0" * 10 + b"\xff\xff" + bytes(4))
    with closing(net.socket(site.hosts[0], UDP, port=OPENED)) as inside:
        answer = ask(net, site.hosts[0], request, (gateway, PORT_MAPPING_PORT))
        assert answer[:2] == b"\x02\x81" and answer[3] == 0
        assert answer[24:36] == nonce
        (public,) = struct.unpack_from("!H", answer, 42)
        assert socket.inet_ntoa(answer[56:60]) == site.outside[0]
        assert_open(net, server, site, inside, public)


@pytest.mark.peer
def test_a_port_is_opened_by_upnp(internet: Factory) -> None:
    """The device is found by multicast, described by XML, and maps a port when SOAP asks for it."""
    net = internet("kernel")
    server, site, gateway = mapping_site(net, PortMapping.UPNP)
    host = site.hosts[0]
    search = (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
    found = ask(net, host, search, ("239.255.255.250", 1900))
    location = re.search(rb"(?i)location: http://([\d.]+):(\d+)(/\S+)", found)
    assert location is not None and location[1].decode() == gateway
    description = fetch(net, host, gateway, int(location[2]), "GET", location[3].decode())
    service = re.search(
        r"<serviceType>(\S+WANIPConnection:\d)</serviceType>.*?<controlURL>(\S+?)<", description
    )
    assert service is not None
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": OPENED,
        "NewProtocol": "UDP",
        "NewInternalPort": OPENED,
        "NewInternalClient": host.addresses[0],
        "NewEnabled": 1,
        "NewPortMappingDescription": "crowline",
        "NewLeaseDuration": 3600,
    }
    body = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    soap = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:AddPortMapping xmlns:u="{service[1]}">{body}</u:AddPortMapping></s:Body></s:Envelope>'
    )
    with closing(net.socket(host, UDP, port=OPENED)) as inside:
        assert_closed(net, server, site, inside)
        action = f'SOAPAction: "{service[1]}#AddPortMapping"\r\nContent-Type: text/xml\r\n'
        answer = fetch(net, host, gateway, int(location[2]), "POST", service[2], action, soap)
        assert answer.startswith("HTTP/1.1 200"), answer
        assert_open(net, server, site, inside, OPENED)


def fetch(
    net: Internet, host: Host, gateway: str, port: int, method: str, path: str, head: str = "", body: str = ""
) -> str:
    with closing(net.socket(host, TCP)) as connection:
        connection.settimeout(PATIENCE)
        connection.connect((gateway, port))
        request = f"{method} {path} HTTP/1.1\r\nHost: {gateway}:{port}\r\nConnection: close\r\n{head}"
        connection.sendall(f"{request}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = b""
        while data := connection.recv(65536):
            received += data
        return received.decode()


def test_upnp_needs_a_gateway_that_is_linux(internet: Factory) -> None:
    """A gateway on the wire runs no programs: that is said, with what to install."""
    with pytest.raises(LocalProblem, match="Only a gateway that Linux can be") as problem:
        internet("user").site("upnp-home")
    assert problem.value.hint is not None and "apt-get" in problem.value.hint


def test_a_proxy_is_the_only_way_out(internet: Factory) -> None:
    """Neither UDP nor TCP leaves; CONNECT to port 443 does, to another port it is forbidden."""
    net = internet()
    server, site = net.server(), net.site("proxy-only", delay=0.001)
    proxy = site.proxy.removeprefix("http://").rpartition(":")
    with (
        closing(net.socket(server, TCP, port=443)) as listener,
        closing(net.socket(server, UDP, port=443)) as datagrams,
        closing(net.socket(site.hosts[0], UDP)) as sender,
    ):
        listener.listen()
        listener.settimeout(PATIENCE)
        datagrams.settimeout(SILENCE)
        sender.sendto(b"lost", (server.addresses[0], 443))
        with pytest.raises(TimeoutError):
            datagrams.recv(100)
        with closing(net.socket(site.hosts[0], TCP)) as direct:
            direct.settimeout(SILENCE)
            with pytest.raises(TimeoutError):
                direct.connect((server.addresses[0], 443))
        for port, status in ((443, b"200"), (80, b"403")):
            with closing(net.socket(site.hosts[0], TCP)) as client:
                client.settimeout(PATIENCE)
                client.connect((proxy[0], int(proxy[2])))
                target = f"{server.addresses[0]}:{port}"
                client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
                assert client.recv(1000).split()[1] == status
                if port == 443:
                    with closing(listener.accept()[0]) as accepted:
                        client.sendall(b"through")
                        assert accepted.recv(100) == b"through"
                        accepted.sendall(b"and back")
                        assert client.recv(100) == b"and back"


def test_https_only_lets_port_443_out(internet: Factory) -> None:
    """TCP to 443 connects, to any other port it does not."""
    net = internet()
    server, site = net.server(), net.site("https-only", delay=0.001)
    for port, connects in ((443, True), (8443, False)):
        with (
            closing(net.socket(server, TCP, port=port)) as listener,
            closing(net.socket(site.hosts[0], TCP)) as client,
        ):
            listener.listen()
            client.settimeout(PATIENCE if connects else SILENCE)
            if connects:
                client.connect((server.addresses[0], port))
            else:
                with pytest.raises(TimeoutError):
                    client.connect((server.addresses[0], port))


def test_a_host_without_ipv4_reaches_ipv4(internet: Factory) -> None:
    """Through NAT64: a megabyte by TCP and back, a run of datagrams, an echo; and IPv6 as it is."""
    net = internet()
    server, site = net.server(), net.site("nat64", delay=0.001)
    host = site.hosts[0]
    assert all(":" in address for address in host.addresses)
    target = nat64.synthesized(server.addresses[0])
    sent = os.urandom(1 << 20)
    with (
        closing(net.socket(server, TCP, port=8080)) as listener,
        closing(net.socket(host, TCP)) as client,
    ):
        listener.listen()
        client.settimeout(PATIENCE)
        client.connect((target, 8080))
        accepted, seen = listener.accept()
        with closing(accepted):
            assert seen[0] == site.outside[0]
            accepted.settimeout(PATIENCE)
            assert exchange(client, accepted, sent) == sent
            assert exchange(accepted, client, sent) == sent


def exchange(out: socket.socket, back: socket.socket, data: bytes) -> bytes:
    """Write and read in turns, so that neither end's buffer has to hold everything."""
    view, received = memoryview(data), bytearray()
    while len(received) < len(data):
        if view:
            view = view[out.send(view[:16384]) :]
        received += back.recv(65536)
    return bytes(received)


def test_runs_and_echoes_cross_between_the_families(internet: Factory) -> None:
    """A run of UDP segments arrives whole, each as large as it was; a ping is answered."""
    net = internet()
    server, site = net.server(), net.site("nat64", delay=0.001)
    host, target = site.hosts[0], nat64.synthesized(server.addresses[0])
    sent = os.urandom(1200 * 40)
    with closing(net.socket(server, UDP, port=9000)) as outside, closing(net.socket(host, UDP)) as inside:
        outside.settimeout(PATIENCE)
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        inside.setsockopt(socket.IPPROTO_UDP, 103, 1200)  # UDP_SEGMENT
        inside.sendto(sent, (target, 9000))
        received = [outside.recvfrom(65536) for _ in range(40)]
        assert b"".join(data for data, _ in received) == sent
        inside.settimeout(PATIENCE)
        outside.sendto(b"back", received[0][1])
        assert inside.recvfrom(100)[0] == b"back"

    def raw() -> socket.socket:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)

    with closing(net.inside(host, raw)) as pinger:
        pinger.settimeout(PATIENCE)
        pinger.sendto(struct.pack("!BBHHH", 128, 0, 0, 4711, 1) + b"ping", (target, 0))  # the kernel sums
        while (reply := pinger.recv(200))[0] != 129:
            pass
        assert struct.unpack_from("!HH", reply, 4) == (4711, 1) and reply[8:] == b"ping"


def test_checksums_are_right_on_both_sides_of_nat64(internet: Factory) -> None:
    """A datagram that came without checksum over IPv4 has a right one in IPv6: else the kernel drops it."""
    net = internet()
    server, site = net.server(), net.site("nat64", delay=0.001)
    host, target = site.hosts[0], nat64.synthesized(server.addresses[0])
    with closing(net.socket(server, UDP, port=9000)) as outside, closing(net.socket(host, UDP)) as inside:
        for end in (inside, outside):
            end.settimeout(PATIENCE)
        outside.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
        inside.sendto(b"?", (target, 9000))
        outside.sendto(b"odd", outside.recvfrom(10)[1])
        assert inside.recvfrom(100)[0] == b"odd"

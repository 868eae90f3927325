"""The words of a diagnosis, each in a few sentences for somebody who has not met it before."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.errors import UsageError


@dataclass(frozen=True, slots=True)
class Term:
    """`names`: what people call it, the first as the doctor does. `text`: paragraphs."""

    names: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        return self.names[0]


def explain(word: str) -> Term:
    """The term of that name, whatever its case and hyphens. Raises `UsageError` that names the others."""
    wanted = _plain(word)
    for term in TERMS:
        if wanted in {_plain(name) for name in term.names}:
            return term
    known = ", ".join(term.name for term in TERMS)
    raise UsageError(f"There is no explanation of {word!r}.", hint=f"There are: {known}.")


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


TERMS = (
    Term(
        ("nat", "network address translation", "translator"),
        """\
A NAT lets many machines share one public address. When a program inside sends its first packet, the
NAT picks a port of its public address for it and remembers the pair; answers to that port are sent
inside. Nobody outside can begin: without a packet from inside there is no port.

Two machines behind NATs connect directly by sending to each other at the same time, so that each
NAT takes the other's packets for answers. Whether that works depends on two things: which port the
NAT picks (see `mapping`), and from whom it lets answers in (see `filtering`).""",
    ),
    Term(
        ("mapping", "easy nat", "hard nat", "endpoint-independent mapping", "symmetric", "symmetric nat"),
        """\
The mapping says whether a program keeps one outside port.

Easy (endpoint-independent): one port for every destination. A server can see it and tell the other
side. Hard (address-dependent, or address and port-dependent; RFC 3489 called it symmetric): another
port for each destination. The port that a server sees is not the one that the other side needs. If
the NAT counts its ports, the next one is predicted; if it draws them at random, one side opens many
sockets and the other tries many ports. Two NATs that both draw at random need a relay.""",
    ),
    Term(
        ("filtering", "filter", "cone", "full cone", "restricted cone", "port restricted cone"),
        """\
The filtering says who may answer to a port that is open.

Endpoint-independent (RFC 3489: full cone): everybody. Address-dependent (restricted cone): any port
of a host that was sent to. Address and port-dependent (port restricted cone): only the very address
and port that was sent to. The last is what most home routers do; it is no obstacle between two easy
NATs, since both sides know each other's port.""",
    ),
    Term(
        ("hairpin", "hairpinning", "nat loopback"),
        """\
A NAT that does hairpinning lets two machines behind it reach each other by its public address.
Without it they must use their inside addresses, which both sides tell each other anyway.""",
    ),
    Term(
        ("port mapping", "upnp", "nat-pmp", "pcp", "port forwarding", "igd"),
        """\
Some routers open a port when a program asks, by one of three protocols: UPnP IGD, NAT-PMP or PCP.
Then everybody can reach the program at that port, and two sides connect directly whatever NAT the
other one has. The setting is often called UPnP, and is off in many routers. It opens ports of the
router that was asked: with a second NAT behind it (see `cgn`) that is not enough.""",
    ),
    Term(
        ("cgn", "cgnat", "carrier-grade nat", "double nat", "two nats"),
        """\
With double NAT your router's "public" address is itself behind another NAT: of the provider (CGN,
carrier-grade NAT, often with addresses from 100.64.0.0/10), or of a second router at home. A port
that your router opens leads nowhere then. At home let one of the two routers do bridge mode; from
the provider ask for a public IPv4 address, or for IPv6, which needs no NAT.""",
    ),
    Term(
        ("ipv6",),
        """\
IPv6 has addresses for every machine, so there is no NAT between two sides that have it, at most a
firewall that lets in answers only. Both send at the same time, and the connection is direct. About
half of all users have it.""",
    ),
    Term(
        ("ipv6 privacy", "privacy", "temporary addresses"),
        """\
An IPv6 address may be made from the hardware's number: then others know the machine again on every
network. Temporary addresses (RFC 8981) are random and change daily; systems use them for what they
begin.""",
    ),
    Term(
        ("udp", "udp blocked"),
        """\
Direct connections go by UDP first: NATs treat it kindly, and nothing has to be set up before data
flows. Networks of companies and hotels sometimes let only TCP out, or only the web. Then two sides
can try to meet by TCP, and else a relay carries the data over TCP or TLS.""",
    ),
    Term(
        ("relay", "turn"),
        """\
A relay is a server that passes on what two sides send each other, encrypted so that it cannot read
it. It always works where the server is reached at all. It costs a detour, and somebody pays for its
traffic.""",
    ),
    Term(
        ("stun", "reflexive address"),
        """\
A STUN server answers each packet with the address and port that it came from. That is how a program
behind a NAT learns the outside address that it can tell the other side.""",
    ),
    Term(
        ("mtu", "path mtu"),
        """\
The largest packet that a path carries whole. Ethernet takes 1,500 bytes, tunnels and VPNs take some
of them for themselves. Direct connections use packets of at least 1,228 bytes, and IPv6 wants
1,280; a path with less loses packets without a word, so that connections begin and then hang.""",
    ),
    Term(
        ("captive portal", "portal", "sign-in"),
        """\
Hotels, trains and airports answer in the place of every server until you have signed in. Open any
page with http:// (not https://) in a browser; the network sends you to its sign-in page.""",
    ),
    Term(
        ("proxy",),
        """\
A proxy is a machine that all connections to the web must go through. It carries TCP and no UDP, and
often only to port 443. The server must be reachable there; then a relay carries the data through
the proxy.""",
    ),
    Term(
        ("firewall", "local firewall", "ufw", "nftables", "firewalld"),
        """\
A firewall on this machine decides which packets programs get. One that lets in only answers is no
obstacle for direct connections: both sides send first. One that blocks what this machine sends by
UDP is.""",
    ),
    Term(
        ("vpn", "tunnel"),
        """\
With a VPN all packets leave by its other end, and it is the NAT there that counts. Many VPN
providers have hard NATs, and none opens ports on demand.""",
    ),
)

"""Which translators Linux itself is, and the nftables rules and parameters that make a namespace one.

Port-preserving masquerading maps endpoint-independently as long as no two inside hosts want one port for one
destination; with `fully-random` it takes a new port for each destination. Both filter by address and port,
because connection tracking knows whole flows only. Whatever else a translator may do, Linux does not.
"""

from __future__ import annotations

from dataclasses import replace

from crowline.lab.behaviour import ICMP, TCP, UDP, Allocation, NatBehaviour, UnsolicitedSyn
from crowline.lab.presets import HOME, SYMMETRIC

TABLE = "crowline"
# What miniupnpd adds its rules to: in a table of the family inet, by these names.
FORWARD_CHAIN, PREROUTING_CHAIN, POSTROUTING_CHAIN = "mapped", "mapped_in", "mapped_out"

_ANSWERS = {
    UnsolicitedSyn.DROP: "",
    UnsolicitedSyn.RST: "reject with tcp reset",
    UnsolicitedSyn.ICMP: "reject with icmp type host-unreachable",
}
_SYN_ALONE = "tcp flags & (fin | syn | rst | ack) == syn"
_IPV4 = "meta nfproto ipv4"


def is_linux(behaviour: NatBehaviour) -> bool:
    """Whether nftables behaves like this, as far as a neighbour can tell."""
    if behaviour.lifetimes.absolute is not None:
        return False
    plain = replace(behaviour, lifetimes=HOME.lifetimes, unsolicited_syn=UnsolicitedSyn.DROP)
    return plain in (HOME, SYMMETRIC)


def rules(behaviour: NatBehaviour, external: str, *, firewalled: bool, maps_ports: bool = False) -> str:
    """The rule set of a gateway: device `wan` is outside, `lan` inside, `external` its outside host.

    `firewalled` guards IPv6. With `maps_ports` there are chains for a daemon that opens ports.

    What comes from outside unasked is dropped before connection tracking keeps it: an entry of a stray packet
    would take the port away from the host inside that is about to use it.
    """
    answer = _ANSWERS[behaviour.unsolicited_syn]
    families = "" if firewalled else f"{_IPV4} "
    drop = [f'iifname "wan" {_IPV4} ct state new {_SYN_ALONE} {answer}'] if answer else []
    drop.append(f'iifname "wan" {families}ct state {{ new, invalid }} drop')
    turn = f'iifname "lan" ip daddr {external} drop'
    flags = " random,fully-random" if behaviour.allocation == Allocation.RANDOM else ""
    translate = [f'oifname "wan" {_IPV4} masquerade{flags}']
    chains = []
    if maps_ports:
        # Only behind their translation can packets to open ports be told from those that nobody asked for.
        chains += [f"chain {name} {{ }}" for name in (FORWARD_CHAIN, PREROUTING_CHAIN, POSTROUTING_CHAIN)]
        chains += [
            _chain("turning", "filter hook prerouting priority mangle", [turn]),
            _chain("entering", "nat hook prerouting priority dstnat", [f"jump {PREROUTING_CHAIN}"]),
            _chain("arriving", "filter hook input priority filter", drop),
            _chain("passing", "filter hook forward priority filter", [f"jump {FORWARD_CHAIN}", *drop]),
        ]
        translate.insert(0, f"jump {POSTROUTING_CHAIN}")
    else:
        chains.append(_chain("unasked", "filter hook prerouting priority mangle", [turn, *drop]))
    chains.append(_chain("leaving", "nat hook postrouting priority srcnat", translate))
    return "\n".join([f"table inet {TABLE} {{", *chains, "}"]) + "\n"


def parameters(behaviour: NatBehaviour) -> dict[str, str]:
    """Kernel parameters, below `/proc/sys/net`, that give connection tracking these lifetimes."""
    udp, tcp, icmp = (str(max(1, round(behaviour.lifetimes.idle(each)))) for each in (UDP, TCP, ICMP))
    tracking = "netfilter/nf_conntrack_"
    return {
        f"{tracking}udp_timeout": udp,
        f"{tracking}udp_timeout_stream": udp,
        f"{tracking}tcp_timeout_established": tcp,
        f"{tracking}icmp_timeout": icmp,
    }


def _chain(name: str, kind: str, statements: list[str]) -> str:
    return "\n".join([f"chain {name} {{ type {kind};", *statements, "}"])

"""Commands by which the tools of local firewalls let UDP through, by the name of the firewall.

Sockets of connections have ports that the system draws, so inbound rules name the system's range: on Linux
that of net.ipv4.ip_local_port_range, elsewhere that of RFC 6335 §6.
"""

from __future__ import annotations

from crowline.diagnosis.facts import FirewallFacts

UFW = "ufw"
FIREWALLD = "firewalld"
NFTABLES = "nftables"
IPTABLES = "iptables"
WINDOWS = "Windows Defender Firewall"
MACOS = "the macOS application firewall"


def allow_inbound(firewall: FirewallFacts) -> tuple[str, ...]:
    """What lets UDP in that nobody asked for; empty where no command is known."""
    if firewall.name == NFTABLES and firewall.inbound_chain:
        return (f"sudo nft insert rule {firewall.inbound_chain} udp dport {_FIRST}-{_LAST} accept",)
    return _INBOUND.get(firewall.name, ())


def allow_outbound(firewall: FirewallFacts) -> tuple[str, ...]:
    """What lets UDP out; empty where no command is known."""
    if firewall.name == NFTABLES and firewall.outbound_chain:
        return (f"sudo nft insert rule {firewall.outbound_chain} meta l4proto udp accept",)
    return _OUTBOUND.get(firewall.name, ())


_FIRST, _LAST = 32768, 60999
_INBOUND: dict[str, tuple[str, ...]] = {
    UFW: (f"sudo ufw allow {_FIRST}:{_LAST}/udp",),
    FIREWALLD: (
        f"sudo firewall-cmd --permanent --add-port={_FIRST}-{_LAST}/udp",
        "sudo firewall-cmd --reload",
    ),
    IPTABLES: (f"sudo iptables -I INPUT -p udp --dport {_FIRST}:{_LAST} -j ACCEPT",),
    WINDOWS: (
        "netsh advfirewall firewall add rule name=crowline dir=in action=allow protocol=UDP "
        "localport=49152-65535",
    ),
    MACOS: ("/usr/libexec/ApplicationFirewall/socketfilterfw --unblockapp $(which python3)",),
}
_OUTBOUND: dict[str, tuple[str, ...]] = {
    UFW: ("sudo ufw allow out proto udp to any",),
    IPTABLES: ("sudo iptables -I OUTPUT -p udp -j ACCEPT",),
    WINDOWS: ("netsh advfirewall firewall add rule name=crowline dir=out action=allow protocol=UDP",),
}

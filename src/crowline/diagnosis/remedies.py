"""Commands by which the tools of local firewalls let UDP through, by the name of the firewall.

Sockets of connections have ports that the system draws, so inbound rules name the system's range: on Linux
that of net.ipv4.ip_local_port_range, elsewhere that of RFC 6335 §6.
"""

from __future__ import annotations

UFW = "ufw"
FIREWALLD = "firewalld"
NFTABLES = "nftables"
IPTABLES = "iptables"
WINDOWS = "Windows Defender Firewall"
MACOS = "the macOS application firewall"

_LINUX_PORTS = (32768, 60999)

ALLOW_INBOUND: dict[str, tuple[str, ...]] = {
    UFW: (f"sudo ufw allow {_LINUX_PORTS[0]}:{_LINUX_PORTS[1]}/udp",),
    FIREWALLD: (
        f"sudo firewall-cmd --permanent --add-port={_LINUX_PORTS[0]}-{_LINUX_PORTS[1]}/udp",
        "sudo firewall-cmd --reload",
    ),
    IPTABLES: (f"sudo iptables -I INPUT -p udp --dport {_LINUX_PORTS[0]}:{_LINUX_PORTS[1]} -j ACCEPT",),
    NFTABLES: (
        f"sudo nft insert rule inet filter input udp dport {_LINUX_PORTS[0]}-{_LINUX_PORTS[1]} accept",
    ),
    WINDOWS: (
        "netsh advfirewall firewall add rule name=crowline dir=in action=allow protocol=UDP "
        "localport=49152-65535",
    ),
    MACOS: ("/usr/libexec/ApplicationFirewall/socketfilterfw --unblockapp $(which python3)",),
}

ALLOW_OUTBOUND: dict[str, tuple[str, ...]] = {
    UFW: ("sudo ufw allow out proto udp to any",),
    IPTABLES: ("sudo iptables -I OUTPUT -p udp -j ACCEPT",),
    NFTABLES: ("sudo nft insert rule inet filter output meta l4proto udp accept",),
    WINDOWS: ("netsh advfirewall firewall add rule name=crowline dir=out action=allow protocol=UDP",),
}

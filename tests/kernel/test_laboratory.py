"""The laboratory itself: its delays, that nothing leaves it, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from crowline.base.errors import LocalProblem
from crowline.lab import kernel, leftovers
from crowline.lab.namespace import NAMESPACES, inside
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host
from crowline.lab.profile import Ipv6
from crowline.lab.tun import open_tun
from places import with_ipv6

Factory = Callable[..., Internet]

ETH_P_ALL = 3
PATIENCE = 30.0  # seconds for another process to do its part on a busy machine
TRANSLATORS = pytest.mark.parametrize("translator", ["kernel", "user"])

KILLED_RUN = """
import sys, time
from crowline.lab.namespaces import Internet
with Internet(translator=sys.argv[1]) as net:
    site = net.site("home")
    sleeper = net.spawn(site.hosts[0], ["sleep", "300"])
    time.sleep(0.1)
    print(net.prefix, sleeper.pid, net.wire.pid, flush=True)
    {ending}
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def traces(prefix: str) -> list[str]:
    """Namespaces and records of that run."""
    folders = [NAMESPACES, leftovers.RECORDS]
    return [entry.name for folder in folders for entry in folder.iterdir() if entry.name.startswith(prefix)]


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def round_trip(net: Internet, one: Host, other: Host, enough: float) -> float:
    """The shortest of some round trips in seconds, or the first below `enough`: noise only ever adds."""
    with (
        closing(net.socket(one, socket.SOCK_DGRAM)) as asks,
        closing(net.socket(other, socket.SOCK_DGRAM)) as answers,
    ):
        asks.settimeout(PATIENCE)
        answers.settimeout(PATIENCE)
        shortest = PATIENCE
        for _ in range(50):
            start = time.perf_counter()
            asks.sendto(b"?", answers.getsockname())
            _, source = answers.recvfrom(10)
            answers.sendto(b"!", source)
            asks.recv(10)
            shortest = min(shortest, time.perf_counter() - start)
            if shortest < enough:
                break
        return shortest


def test_delays_add_up(internet: Factory) -> None:
    """10 ms one way between host and server, 20 ms between hosts, each way to within a millisecond."""
    net = internet()
    server, left, right = net.server(), net.site("public"), net.site("public")
    assert 0.020 <= round_trip(net, left.hosts[0], server, 0.022) < 0.022
    assert 0.040 <= round_trip(net, left.hosts[0], right.hosts[0], 0.042) < 0.042
    net.set_delay(left, 0.0)
    net.set_delay(right, 0.0)
    assert round_trip(net, left.hosts[0], right.hosts[0], 0.010) < 0.010


def test_an_idle_wire_uses_no_processor(internet: Factory) -> None:
    """Precise delays are not bought with a busy loop, even with a packet on its way."""
    net = internet()
    server, site = net.server(), net.site("public", delay=0.2)
    wire = net.wire
    with closing(net.socket(site.hosts[0], socket.SOCK_DGRAM)) as sender:
        before = processor_ticks(wire.pid)
        sender.sendto(b"slow", (server.addresses[0], 9))
        time.sleep(0.3)
    assert processor_ticks(wire.pid) - before <= 2  # of 10 ms each


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@TRANSLATORS
def test_no_device_leads_out(internet: Factory, translator: str) -> None:
    """Every device of every namespace is a loopback, a bridge, a tunnel of the wire's or a cable whose other
    end is in another namespace of the same internet."""
    net = internet(translator)
    net.server()
    net.site(with_ipv6("home", Ipv6.OPEN), hosts=2)
    net.site("public")
    for place in ("cgn-symmetric", "full-cone", "proxy-only", "nat64"):
        net.site(place)
    namespaces = [entry.name for entry in NAMESPACES.iterdir() if entry.name.startswith(net.prefix)]
    ours = {(NAMESPACES / name).stat().st_ino for name in namespaces}
    assert len(namespaces) >= 4
    for name in namespaces:
        listing = subprocess.run(
            ["ip", "-n", name, "-json", "-details", "link"], capture_output=True, check=True
        ).stdout
        for device in json.loads(listing):
            kind = device.get("linkinfo", {}).get("info_kind", device["link_type"])
            assert kind in ("loopback", "bridge", "tun", "veth"), device
            if kind == "veth":
                assert cable_end(name, device) in ours


def cable_end(namespace: str, device: dict[str, object]) -> int | None:
    """The inode of the namespace in which the other end of a virtual cable is."""
    peer = device.get("link_netnsid")
    listing = subprocess.run(
        ["ip", "-n", namespace, "netns", "list-id"], capture_output=True, text=True, check=True
    )
    for number, name in re.findall(r"nsid (\d+).*name: (\S+)", listing.stdout):
        if int(number) == peer:
            return (NAMESPACES / name.rstrip(")")).stat().st_ino
    return None


def test_the_wire_holds_no_socket(internet: Factory) -> None:
    """The one process between the namespaces owns tunnels and pipes, and nothing that reaches a network."""
    net = internet()
    net.server()
    net.site("home")
    opened = [str(entry.readlink()) for entry in Path(f"/proc/{net.wire.pid}/fd").iterdir()]
    assert sum(target == "/dev/net/tun" for target in opened) == 2
    assert not [target for target in opened if target.startswith("socket:")]


@TRANSLATORS
def test_nothing_leaves(internet: Factory, translator: str) -> None:
    """Packets to addresses outside reach no device of this machine, and their sender is told so.

    Every device of the machine's own namespace is watched meanwhile.
    """
    net = internet(translator)
    server, site = net.server(), net.site(with_ipv6("home", Ipv6.OPEN))
    others = [net.site(place) for place in ("cgn-symmetric", "full-cone")]
    targets = ["1.1.1.1", "8.8.8.8", "192.0.2.1", "127.0.0.1", *machine_addresses()]
    token = os.urandom(16)
    with ExitStack() as stack:
        watcher = stack.enter_context(
            closing(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)))
        )
        watcher.setblocking(False)
        for host in (server, site.hosts[0], *(other.hosts[0] for other in others)):
            sender = stack.enter_context(closing(net.socket(host, socket.SOCK_DGRAM)))
            for target in targets:
                with suppress(OSError):
                    sender.sendto(token, (target, 9))
            if ":" not in host.addresses[-1]:
                continue
            sender6 = stack.enter_context(closing(net.socket(host, socket.SOCK_DGRAM, host.addresses[-1])))
            for target in ("2001:4860:4860::8888", "2606:4700:4700::1111"):
                with suppress(OSError):
                    sender6.sendto(token, (target, 9))
        time.sleep(0.1)
        assert not [packet for packet in drained(watcher) if token in packet]
        own = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        own.sendto(token, ("127.0.0.1", 9))
        time.sleep(0.1)
        assert [packet for packet in drained(watcher) if token in packet], "the watcher sees nothing at all"

        caller = stack.enter_context(closing(net.socket(site.hosts[0], socket.SOCK_STREAM)))
        caller.settimeout(PATIENCE)
        with pytest.raises(OSError, match="unreachable"):
            caller.connect(("1.1.1.1", 80))
    assert net.counters()["no route"] > 0


def machine_addresses() -> list[str]:
    listing = subprocess.run(["ip", "-json", "-4", "addr"], capture_output=True, check=True).stdout
    return [entry["local"] for device in json.loads(listing) for entry in device["addr_info"]]


def drained(watcher: socket.socket) -> list[bytes]:
    packets = []
    with suppress(BlockingIOError):
        while True:
            packets.append(watcher.recv(65536))
    return packets


@TRANSLATORS
def test_everything_is_removed(internet: Factory, translator: str) -> None:
    """After the end there is no namespace, no record and no process, whatever they were doing."""
    net = internet(translator)
    site = net.site("symmetric", hosts=2)
    stubborn = net.spawn(
        site.hosts[0],
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None and stubborn.stdout.readline()
    parent = net.spawn(site.hosts[1], ["sh", "-c", "setsid sleep 301 & wait"])
    prefix, wire = net.prefix, net.wire
    assert traces(prefix)
    assert wait_until(lambda: len(leftovers._processes([site.hosts[1].namespace])) == 2)
    children = leftovers._processes([site.hosts[1].namespace])
    net.close()
    assert traces(prefix) == []
    assert not any(is_alive(pid) for pid in (stubborn.pid, parent.pid, wire.pid, *children))
    net.close()


def test_everything_is_removed_after_a_failure() -> None:
    """An exception in the body, or while building, leaves nothing."""
    prefix = ""
    with pytest.raises(ZeroDivisionError), Internet() as net:
        prefix = net.prefix
        net.site("home")
        raise ZeroDivisionError
    assert prefix and traces(prefix) == []
    with pytest.raises(LocalProblem), Internet() as net:
        prefix = net.prefix
        net.server("twice")
        net.server("twice")
    assert traces(prefix) == []


@TRANSLATORS
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_is_cleared_away(translator: str, number: signal.Signals) -> None:
    """However the owner dies, its namespaces, its record and its programs are gone soon after."""
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN.format(ending="time.sleep(300)"), translator],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        prefix, sleeper, wire = owner.stdout.readline().split()
        assert traces(prefix) and is_alive(int(sleeper))
        owner.send_signal(number)
        owner.wait(PATIENCE)
    assert wait_until(lambda: not traces(prefix))
    assert wait_until(lambda: not is_alive(int(sleeper)) and not is_alive(int(wire)))


def test_the_next_run_clears_what_two_deaths_left() -> None:
    """When owner and wire are both killed, the remains are recognised, and a living run's are not touched."""
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN.format(ending="time.sleep(300)"), "user"],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner, Internet() as living:
        assert owner.stdout is not None
        prefix, sleeper, wire = owner.stdout.readline().split()
        assert prefix not in leftovers.abandoned()
        os.kill(int(wire), signal.SIGKILL)
        owner.kill()
        owner.wait(PATIENCE)
        wait_until(lambda: not is_alive(int(wire)))
        with Internet():
            assert traces(prefix) == []
            assert not is_alive(int(sleeper))
            assert living.prefix not in leftovers.abandoned()
            assert living.server("still")


def test_opening_a_tunnel_leaves_the_process_where_it_is(internet: Factory) -> None:
    """The caller's own namespace is the same before and after, also when the work in the other one fails."""
    host = internet().server()
    before = Path("/proc/thread-self/ns/net").readlink()
    tun = open_tun("extra", host.namespace)
    assert inside(host.namespace, lambda: socket.if_nametoindex("extra")) > 0
    os.close(tun.descriptor)
    with pytest.raises(OSError, match="extra"):
        inside(host.namespace, lambda: Path("/sys/class/net/extra-not-there").stat())
    with pytest.raises(FileNotFoundError):
        open_tun("extra", "crow-there-is-no-such-namespace")
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_tunnels_segment(internet: Factory) -> None:
    """The kernel hands over TCP in super-packets, and UDP too where it is new enough to."""
    tun = open_tun("extra", internet().server().namespace)
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    with closing(tun):
        assert tun.offloads & 0x02
        assert tun.segments_udp == (release >= (6, 2))


def test_without_nftables_the_wire_translates(
    internet: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself the laboratory takes the user-space translator where `nft` is missing, and works."""
    (tmp_path / "ip").symlink_to(kernel.find_program("ip"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kernel, "_SYSTEM_FOLDERS", str(tmp_path))
    net = internet("auto")
    server, site = net.server(), net.site("home")
    assert site.translators == ("user",)
    assert round_trip(net, site.hosts[0], server, 0.022) < 0.022
    with pytest.raises(LocalProblem, match="needs nftables"), Internet(translator="kernel") as broken:
        broken.site("home")


def test_namespaces_of_two_runs_do_not_meet(internet: Factory) -> None:
    """Two internets have the same addresses and know nothing of each other."""
    one, other = internet(), internet()
    assert one.prefix != other.prefix
    ends = [(net, net.server()) for net in (one, other)]
    assert ends[0][1].addresses == ends[1][1].addresses
    with closing(one.socket(ends[0][1], socket.SOCK_DGRAM, port=7)) as here:
        here.settimeout(0.1)
        with closing(other.socket(other.site("public").hosts[0], socket.SOCK_DGRAM)) as there:
            there.sendto(b"?", (ends[1][1].addresses[0], 7))
        with pytest.raises(TimeoutError):
            here.recv(10)
    one.close()
    assert round_trip(other, other.site("public").hosts[0], ends[1][1], 0.022) < 0.022

"""When a change of the network is told, and what is told of it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator

import pytest

from crowline.base.addresses import Address
from crowline.net import network, network_watch
from crowline.net import rtnetlink as rt
from crowline.net.interfaces import InterfaceAddress, InterfaceKind
from crowline.net.network import MAX_DESTINATIONS, Network, NetworkChange, Way, look
from crowline.net.network_watch import LATEST, QUIET, Disturbances, NetworkWatch, Settling

PATIENCE = 30.0
SERVER = Address("198.51.100.1", 3478)
WIFI, CABLE = 2, 3


def address(host: str, index: int = WIFI, **facts: object) -> InterfaceAddress:
    return InterfaceAddress(host, 64 if ":" in host else 24, f"eth{index}", index, **facts)  # type: ignore[arg-type]


def net(*hosts: str, way: Way | None = None, index: int = WIFI) -> Network:
    return Network(tuple(address(host, index) for host in hosts), ((SERVER, way),))


def notice(kind: int, body: bytes) -> rt.Message:
    return rt.Message(kind, 0, 0, memoryview(body))


def address_gone(host: bytes, index: int = WIFI) -> rt.Message:
    body = struct.pack("=BBBBI", 2, 24, 0, 0, index) + struct.pack("=HH", 8, 1) + host
    return notice(rt.DELETE_ADDRESS, body)


def link_is(flags: int, index: int = WIFI) -> rt.Message:
    return notice(rt.NEW_LINK, struct.pack("=BxHiII", 0, 1, index, flags, 0))


def test_a_burst_is_told_once_when_it_is_over() -> None:
    """A little after its last piece."""
    settling = Settling()
    assert settling.due() is None
    settling.disturb(10.0)
    settling.disturb(10.1)
    assert settling.due() == pytest.approx(10.1 + QUIET)
    settling.settle()
    assert settling.due() is None


def test_a_burst_without_end_is_told_all_the_same() -> None:
    """Half a second after its first piece, and again half a second later."""
    settling = Settling()
    for piece in range(100):
        settling.disturb(10.0 + piece * QUIET / 2)
    assert settling.due() == pytest.approx(10.0 + LATEST)
    settling.settle()
    settling.disturb(20.0)
    assert settling.due() == pytest.approx(20.0 + QUIET)


def test_a_change_says_what_came_and_what_went() -> None:
    """In values for programs, and in words."""
    change = NetworkChange(net("192.0.2.1"), net("192.0.2.2", "2001:db8::2"))
    assert change.is_real
    assert change.came == ("192.0.2.2", "2001:db8::2")
    assert change.went == ("192.0.2.1",)
    assert change.reason == "192.0.2.2 came, 2001:db8::2 came, 192.0.2.1 went"


def test_the_same_address_on_another_interface_is_another() -> None:
    """The cable and the radio may be given the same one."""
    change = NetworkChange(net("192.0.2.1", index=WIFI), net("192.0.2.1", index=CABLE))
    assert (change.came, change.went) == (("192.0.2.1",), ("192.0.2.1",))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (
            Way("192.0.2.1", WIFI, "192.0.2.254"),
            Way("192.0.2.1", WIFI, "192.0.2.253"),
            "packets go another way",
        ),
        (None, Way("192.0.2.1", WIFI), "packets go another way"),
        (Way("192.0.2.1", WIFI), None, "a route was lost"),
    ],
    ids=["gateway", "found", "lost"],
)
def test_another_way_is_a_change(before: Way | None, after: Way | None, reason: str) -> None:
    """Another gateway is another NAT, although the addresses are the same."""
    change = NetworkChange(net("192.0.2.1", way=before), net("192.0.2.1", way=after))
    assert change.rerouted == (SERVER,)
    assert change.reason == reason


def test_what_is_no_change_is_none() -> None:
    """Another order, an address that is deprecated now, a destination that was not watched before."""
    before = net("192.0.2.1", "2001:db8::1")
    after = Network((address("2001:db8::1", is_deprecated=True), address("192.0.2.1")), ())
    assert not NetworkChange(before, after).is_real
    assert not NetworkChange(after, before).is_real
    assert NetworkChange(before, after).reason == ""


def test_an_address_that_went_and_came_back_is_told() -> None:
    """Two networks of the same numbers, one after the other."""
    known = net("192.0.2.1", "192.0.2.2")
    disturbances = Disturbances(known)
    assert disturbances.read(address_gone(b"\xc0\x00\x02\x01"))
    assert disturbances.renewed(known) == {"192.0.2.1"}
    assert disturbances.renewed(net("192.0.2.2")) == frozenset()
    assert NetworkChange(known, known, frozenset({"192.0.2.1"})).reason == "192.0.2.1 went and came back"


def test_a_link_that_went_down_and_up_renews_its_addresses() -> None:
    """Another radio network, in the time of two notices."""
    known = net("192.0.2.1")
    disturbances = Disturbances(known)
    assert disturbances.read(link_is(rt.UP | rt.RUNNING))
    assert not disturbances.renewed(known)
    assert disturbances.read(link_is(rt.UP))
    assert disturbances.read(link_is(rt.UP | rt.RUNNING))
    assert disturbances.renewed(known) == {"192.0.2.1"}


def test_what_does_not_concern_known_addresses_is_not_kept() -> None:
    """However many containers come and go between two looks."""
    disturbances = Disturbances(net("192.0.2.1"))
    for number in range(256):
        disturbances.read(address_gone(bytes([10, 0, 0, number]), index=number + 10))
        disturbances.read(link_is(0, index=number + 10))
    assert disturbances.renewed(net("192.0.2.1")) == frozenset()


def test_lost_notices_are_a_reason_to_look_and_others_are_not() -> None:
    """What the kernel could not say may have been anything."""
    disturbances = Disturbances(net())
    assert disturbances.read(None)
    assert disturbances.read(notice(rt.NEW_ROUTE, b""))
    assert disturbances.read(notice(rt.DELETE_ADDRESS, b"broken"))
    assert not disturbances.read(notice(rt.NEW_ROUTER_OPTION, b""))


def test_containers_count_only_where_packets_leave_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bridge to containers comes and goes; inside of a container it is the way out."""
    listed = [
        address("192.0.2.1"),
        address("172.17.0.1", CABLE, kind=InterfaceKind.VIRTUAL),
        address("fe80::1"),
        address("127.0.0.1", 1, kind=InterfaceKind.LOOPBACK),
        address("192.0.2.9", is_running=False),
        address("2001:db8::9", is_tentative=True),
    ]
    way: Way | None = None
    monkeypatch.setattr(network, "interface_addresses", lambda: listed)
    monkeypatch.setattr(network, "_ways_towards", lambda destinations: [way for _ in destinations])
    assert [each.host for each in look([SERVER]).addresses] == ["192.0.2.1"]
    way = Way("172.17.0.1", CABLE)
    assert [each.host for each in look([SERVER]).addresses] == ["192.0.2.1", "172.17.0.1"]
    assert look([SERVER]).way_towards(SERVER) == way
    assert look([SERVER]).way_towards(Address("192.0.2.7", 1)) is None


def test_destinations_are_bounded() -> None:
    """Peers name addresses, and each costs a question."""
    many = [Address(f"127.0.0.{number}", 1) for number in range(1, 200)]
    assert len(look(many).ways) == MAX_DESTINATIONS


def test_this_machine_has_a_way_to_itself() -> None:
    """The real thing, whatever system this is."""
    way = look([Address("127.0.0.1", 9)]).way_towards(Address("127.0.0.1", 9))
    assert way is not None
    assert way.source == "127.0.0.1"


Tell = Callable[[Network], None]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tell]:
    """A system that tells nothing by itself; its network is what the test says."""
    now = net("192.0.2.1")

    def refuse(on_notice: object) -> None:
        raise OSError("no netlink here")

    def tell(changed: Network) -> None:
        nonlocal now
        now = changed

    monkeypatch.setattr(network_watch, "NoticeSocket", refuse)
    monkeypatch.setattr(network_watch, "look", lambda destinations: now)
    monkeypatch.setattr(network_watch, "POLL_INTERVAL", 0.001)
    return tell


@pytest.mark.parametrize(
    ("after", "renewed", "left"),
    [
        ([address("192.0.2.1", 2), address("2001:db8::1", 2), address("192.0.2.9", 3)], (), set()),
        ([address("192.0.2.7", 2), address("192.0.2.9", 3)], (), set()),
        ([address("198.51.100.1", 2), address("192.0.2.9", 3)], (), {2}),
        ([address("192.0.2.1", 2)], ("192.0.2.1",), {2, 3}),
        ([], (), {2, 3}),
    ],
    ids=["nothing", "another address", "another network", "perhaps another network", "offline"],
)
def test_an_interface_has_left_when_it_keeps_none_of_its_networks(
    after: list[InterfaceAddress], renewed: tuple[str, ...], left: set[int]
) -> None:
    """What routers have said there is void then; an address that changes within its network is nothing."""
    before = [address("192.0.2.1", 2), address("2001:db8::1", 2), address("192.0.2.9", 3)]
    change = NetworkChange(Network(tuple(before), ()), Network(tuple(after), ()), frozenset(renewed))
    assert change.left == left


async def test_a_system_that_tells_nothing_is_asked(world: Tell) -> None:
    """Each change is told once."""
    changes: asyncio.Queue[NetworkChange] = asyncio.Queue()
    watch = NetworkWatch(changes.put_nowait)
    assert watch.is_polling
    for host in ("192.0.2.2", "192.0.2.3"):
        world(net(host))
        async with asyncio.timeout(PATIENCE):
            change = await changes.get()
        assert change.came == (host,)
        assert watch.network == net(host)
    assert changes.empty()
    watch.close()


async def test_a_closed_watch_tells_nothing(world: Tell) -> None:
    """Also when it is closed by whom it tells; and twice."""
    changes: list[NetworkChange] = []
    told = asyncio.Event()

    def on_change(change: NetworkChange) -> None:
        changes.append(change)
        watch.close()
        told.set()

    watch = NetworkWatch(on_change)
    world(net("192.0.2.2"))
    async with asyncio.timeout(PATIENCE):
        await told.wait()
    world(net("192.0.2.3"))
    watch.watch([SERVER])
    watch.close()
    assert len(changes) == 1


async def test_other_destinations_are_no_change(world: Tell) -> None:
    """What changed before is told, what is watched from now on is looked at once."""
    changes: list[NetworkChange] = []
    watch = NetworkWatch(changes.append)
    world(net("192.0.2.2"))
    watch.watch([SERVER])
    assert [change.came for change in changes] == [("192.0.2.2",)]
    world(net("192.0.2.2", way=Way("192.0.2.2")))
    watch.watch([SERVER])
    assert [change.rerouted for change in changes] == [(), (SERVER,)]
    watch.close()


async def test_what_changes_while_the_destinations_do_is_told(
    world: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the network is looked at meanwhile: each time may show something new."""
    changes: list[NetworkChange] = []
    watch = NetworkWatch(changes.append)
    looks = iter(range(2, 100))
    monkeypatch.setattr(network_watch, "look", lambda destinations: net(f"192.0.2.{next(looks)}"))
    watch.watch([SERVER])
    assert [change.came for change in changes] == [tuple(each.host for each in watch.network.addresses)]
    watch.close()

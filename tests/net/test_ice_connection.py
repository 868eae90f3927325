"""Whole ICE connections over sockets that the caller owns, with lines as signals."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import NoPath, UsageError
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import CandidateType
from crowline.ice.events import Restarted, SendRefused
from crowline.net.relayed_address import TurnAccount
from crowline.stun.attributes import XorMappedAddress
from crowline.stun.message import MessageClass, parse
from datagram_endpoint import Endpoint, endpoint
from ice_sides import PATIENCE, Side, exchange, pair, start
from needs import missing

try:
    import aioice
    import aioice.ice
except ImportError:
    aioice = None  # type: ignore[assignment]


@pytest.mark.parametrize("hosts", [("127.0.0.2", "127.0.0.3"), ("::1", "::1")], ids=["IPv4", "IPv6"])
async def test_two_sides_connect_and_carry_data(hosts: tuple[str, str]) -> None:
    """Over their own sockets, which work on when the connection has ended."""
    async with pair(*hosts) as (one, two):
        await start(one, two)
        chosen = await one.connection.connected()
        assert (chosen.local.address, chosen.remote.address) == (one.socket.local, two.socket.local)
        assert (await two.connection.connected()).remote.address == one.socket.local
        await exchange(one, two)
        await one.connection.close()
        one.socket.take = lambda data, source: False
        two.socket.write(b"still open", one.socket.local)
        while (arrived := await one.socket.others.get())[0] != b"still open":
            pass
        assert arrived[1] == two.socket.local


NAME = "6d1f2b3c-0000-4000-8000-000000000000.local"
OTHER_NAME = "6d1f2b3c-0000-4000-8000-000000000001.local"


async def test_names_stand_for_addresses() -> None:
    """Each side tells a name, looks the other's up, and no line says where a side is; after a restart too."""
    names = {"127.0.0.2": NAME, "127.0.0.3": OTHER_NAME}
    hosts = {name: host for host, name in names.items()}

    async def find(name: str) -> str | None:
        return hosts.get(name)

    async with pair(find=find, name_of=names.__getitem__) as (one, two), endpoint() as server:
        server.take = answering(server, Address("198.51.100.7", 7))
        one.connection.hear(f"candidate:7 1 udp 1 {NAME.replace('6d', '7e')} 9 typ host")  # nobody's
        one.connection.hear("candidate:7 1 udp 1 printer.local 9 typ host")  # no such name is looked up
        await start(one, two, stun=[server.local])
        found, _ = await asyncio.gather(one.connection.connected(), two.connection.connected())
        assert found.remote.type is CandidateType.HOST  # as told, and not only heard from
        assert one.connection.restart()
        await exchange(one, two)
        assert not any(host in line for host in names for line in one.lines + two.lines)
        assert one.connection.counters["name"] == 1


async def test_a_lookup_that_fails_or_hangs_harms_nobody() -> None:
    """Its candidate is left alone, and closing waits for nothing."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def find(name: str) -> str | None:
        asked.put_nowait(name)
        if name == NAME:
            raise OSError(errno.ENOENT, "no such name")
        return await asyncio.get_running_loop().create_future()

    async with pair(find=find) as (one, _):
        for name in (NAME, NAME.replace("6d", "7e")):
            one.connection.hear(f"candidate:1 1 udp 2130706431 {name} 9 typ host")
            assert await asked.get() == name


@pytest.mark.parametrize("rounds", range(5))
async def test_a_gathering_ends_with_the_connection(rounds: int) -> None:
    """However far it was, and nothing is asked of a server after that."""
    async with pair() as (one, _), endpoint() as mute:
        one.connection.add_socket(one.socket.local)
        account = TurnAccount(mute.local, "user", "password")
        gathering = asyncio.ensure_future(one.connection.gather(stun=[mute.local], turn=[account]))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await one.connection.close()
        one.socket.write = lambda data, destination: pytest.fail("a datagram after the end")  # type: ignore[method-assign]
        done, _ = await asyncio.wait({gathering}, timeout=PATIENCE / 2)
        assert done == {gathering}
        assert "end-of-candidates" not in one.lines


async def test_nothing_is_looked_up_after_the_end() -> None:
    """Lines may still come; nobody would wait for what they ask for."""
    asked: list[str] = []

    async def find(name: str) -> str | None:
        asked.append(name)
        return None

    async with pair(find=find) as (one, _):
        await one.connection.close()
        one.connection.hear(f"candidate:1 1 udp 2130706431 {NAME} 9 typ host")
        await asyncio.sleep(0)
        assert not asked


@pytest.mark.parametrize("controlling", [True, False])
async def test_a_lite_side_is_found(controlling: bool) -> None:
    """It only answers, whatever it was made as, and carries data like any other."""
    async with endpoint("127.0.0.2") as left, endpoint("127.0.0.3") as right, asyncio.timeout(PATIENCE):
        full, lite = Side(not controlling, left), Side(controlling, right, lite=True)
        full.join(lite)
        lite.join(full)
        await start(full, lite)
        await asyncio.gather(full.connection.connected(), lite.connection.connected())
        await exchange(full, lite)
        with pytest.raises(UsageError, match="its own addresses"):
            await lite.connection.gather(stun=[right.local])
        await asyncio.gather(full.connection.close(), lite.connection.close())


async def test_what_does_not_leave_this_machine_is_said() -> None:
    """A firewall forbids the way to one address: the others are tried, and an event names the reason."""
    async with pair() as (one, two):
        forbidden = Address("192.0.2.9", 9)
        send = one.socket.write

        def refuse(data: bytes, destination: Address) -> None:
            if destination == forbidden:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            send(data, destination)

        one.socket.write = refuse  # type: ignore[method-assign]
        one.connection.hear("candidate:9 1 udp 2130706431 192.0.2.9 9 typ host")
        await start(one, two)
        await one.connection.connected()
        refused = [event for event in one.events if isinstance(event, SendRefused)]
        assert refused == [SendRefused(one.socket.local, forbidden, SendProblem.FORBIDDEN)]


async def test_data_of_strangers_is_dropped() -> None:
    """Only what a check has proven to be the other side is heard."""
    async with pair() as (one, two), endpoint("127.0.0.4") as stranger:
        await start(one, two)
        await asyncio.gather(one.connection.connected(), two.connection.connected())
        stranger.write(b"let me in", one.socket.local)
        await one.until(lambda: one.connection.counters["unproven"] == 1)
        await exchange(one, two)


async def test_what_a_server_sees_is_told() -> None:
    """The mapped address, once, however many servers say the same."""
    mapped = Address("198.51.100.7", 7)
    async with pair() as (one, _), endpoint() as first, endpoint() as second:
        for server in (first, second):
            server.take = answering(server, mapped)
        one.connection.add_socket(one.socket.local)
        await one.connection.gather(stun=[first.local, second.local])
        kinds = [(line.type, line.host, line.related_host) for line in one.told()]
        assert kinds == [
            (CandidateType.HOST, "127.0.0.2", ""),
            (CandidateType.SERVER_REFLEXIVE, "198.51.100.7", "127.0.0.2"),
        ]
        assert one.lines[-1] == "end-of-candidates"


async def test_a_mute_server_is_not_waited_for_longer_than_wished() -> None:
    """The end of candidates is told then; what the others said is told already."""
    async with pair() as (one, _), endpoint() as server, endpoint() as mute:
        server.take = answering(server, Address("198.51.100.7", 7))
        one.connection.add_socket(one.socket.local)
        account = TurnAccount(mute.local, "user", "password")
        await one.connection.gather(stun=[server.local, mute.local], turn=[account], timeout=1.0)
        assert one.lines[-1] == "end-of-candidates"


async def test_servers_elsewhere_are_not_asked_from_loopback() -> None:
    """Such a question cannot leave this machine, and would only be waited for."""
    async with pair() as (one, _):
        one.connection.add_socket(one.socket.local)
        await one.connection.gather(stun=[Address("192.0.2.1", 3478)])
        assert one.lines[-1] == "end-of-candidates"


async def test_what_a_server_saw_is_kept_open_until_there_is_a_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By indications, which nobody answers: the NAT forgets nothing while the lines are carried."""
    monkeypatch.setattr("crowline.net.ice_connection.KEEPALIVE_INTERVAL", 0.01)
    async with endpoint("127.0.0.2") as socket, endpoint() as server, asyncio.timeout(PATIENCE):
        lone = Side(True, socket)
        server.take = answering(server, Address("198.51.100.7", 7))
        lone.connection.add_socket(socket.local)
        await lone.connection.gather(stun=[server.local])
        server.take = lambda data, source: False
        for _ in range(2):
            data, source = await server.others.get()
            assert parse(data).message.message_class is MessageClass.INDICATION
            assert source == socket.local
        await lone.connection.close()


async def test_a_restart_goes_on_with_the_data() -> None:
    """The other side follows by itself, and both agree anew."""
    async with pair() as (one, two):
        await start(one, two)
        await asyncio.gather(one.connection.connected(), two.connection.connected())
        assert one.connection.restart()
        await exchange(one, two)
        await one.connection.gather()
        await one.until(lambda: one.agreed() == 2)
        await two.until(lambda: two.agreed() == 2)
        await exchange(one, two)
        assert [event.by_peer for event in one.events if isinstance(event, Restarted)] == [False]
        assert [event.by_peer for event in two.events if isinstance(event, Restarted)] == [True]


async def test_a_new_socket_takes_over_after_a_restart() -> None:
    """The network has changed: the old address is gone."""
    async with pair() as (one, two), endpoint("127.0.0.4") as fresh:
        await start(one, two)
        await asyncio.gather(one.connection.connected(), two.connection.connected())
        old = one.socket.local
        one.socket.take = lambda data, source: None
        one.use(fresh)
        one.connection.add_socket(fresh.local)
        await one.connection.remove_socket(old)
        assert one.connection.restart()
        await one.connection.gather()
        await one.until(lambda: one.remote() == two.socket.local)
        await two.until(lambda: two.remote() == fresh.local)
        await exchange(one, two)


async def test_there_is_nothing_to_send_by_before_a_pair() -> None:
    """That is said, and so is what cannot work."""
    async with pair() as (one, _):
        with pytest.raises(NoPath):
            one.connection.send(b"too early")
        with pytest.raises(UsageError, match="Nobody can send"):
            one.connection.add_socket(Address("0.0.0.0", 1))
        one.connection.add_socket(one.socket.local)
        with pytest.raises(UsageError, match="no socket"):
            await one.connection.remove_socket(Address("127.0.0.1", 9))


async def test_nothing_begins_anew_before_the_other_side_is_known() -> None:
    """A restart says so."""
    async with endpoint("127.0.0.2") as socket:
        lone = Side(True, socket)
        assert not lone.connection.restart()
        await lone.connection.close()


async def test_closing_cancels_who_waits() -> None:
    """Nobody hangs on a connection that will not come."""
    async with pair() as (one, _):
        waiting = asyncio.ensure_future(one.connection.connected())
        await asyncio.sleep(0)
        await one.connection.close()
        await asyncio.wait({waiting})
        assert waiting.cancelled()


@pytest.mark.peer
@pytest.mark.parametrize("controlling", [True, False])
async def test_an_agent_of_others_understands_the_lines(
    monkeypatch: pytest.MonkeyPatch, controlling: bool
) -> None:
    """aioice hears ours and we hear its, and data goes both ways."""
    if aioice is None:
        missing("aioice is not installed")
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])
    theirs = aioice.Connection(ice_controlling=not controlling)
    async with endpoint("127.0.0.2") as socket, asyncio.timeout(PATIENCE):
        ours = Side(controlling, socket)
        ours.connection.add_socket(socket.local)
        await ours.connection.gather()
        try:
            await their_session(theirs, ours)
        finally:
            await theirs.close()
            await ours.connection.close()


async def their_session(theirs: Any, ours: Side) -> None:
    """Signal both ways, connect, and send a datagram each way."""
    await theirs.gather_candidates()
    for line in (f"ice-ufrag:{theirs.local_username}", f"ice-pwd:{theirs.local_password}"):
        ours.connection.hear(line)
    for candidate in theirs.local_candidates:
        ours.connection.hear(f"a=candidate:{candidate.to_sdp()}")
    ours.connection.hear("end-of-candidates")
    said = dict(line.partition(":")[::2] for line in ours.lines)
    theirs.remote_username, theirs.remote_password = said["ice-ufrag"], said["ice-pwd"]
    for told in ours.told():
        await theirs.add_remote_candidate(aioice.Candidate.from_sdp(told.write().removeprefix("candidate:")))
    await theirs.add_remote_candidate(None)
    await asyncio.gather(theirs.connect(), ours.connection.connected())
    ours.connection.send(b"from us")
    assert await theirs.recv() == b"from us"
    await theirs.send(b"from them")
    assert await ours.data.get() == b"from them"


def answering(server: Endpoint, mapped: Address) -> Any:
    """A STUN server that says the same to everybody."""

    def answer(data: bytes, source: Address) -> None:
        question = parse(data).message
        server.write(question.answer(MessageClass.SUCCESS, XorMappedAddress(mapped)).encode(), source)

    return answer

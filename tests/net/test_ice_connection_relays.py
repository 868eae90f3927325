"""ICE connections that are relayed: by sockets of the caller, and by streams of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from certificates import self_signed
from crowline.base.addresses import Address
from crowline.base.errors import NoPath
from crowline.base.transport import Transport
from crowline.ice.candidate import CandidateType
from crowline.ice.events import LossReason, PairLost
from crowline.net import stream
from crowline.net.ice_relays import MAX_PEERS, IceRelays
from crowline.net.relayed_address import RelayedAddress, TurnAccount
from crowline.server.certificate import Certificate
from crowline.turn.upkeep import Upkeep
from datagram_endpoint import endpoint
from ice_sides import PATIENCE, Side, exchange, pair, start
from turn_front import HOME, front
from waiting import until


@pytest.mark.parametrize("transport", Transport)
async def test_relayed_addresses_connect_where_nothing_else_does(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends reach the server only, over whatever transport; data goes by the relay, both ways."""
    files = self_signed(tmp_path, "turn.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
    stream._system_context.cache_clear()
    tls = Certificate(files.certificate, files.key)
    async with front(tls_listen=[HOME], tls=tls) as running, pair() as (one, two):
        for side in (one, two):
            only_to(side, running.address)
        address = running.tls_addresses[0] if transport is Transport.TLS else running.address
        account = TurnAccount(address, "user", "password", transport, name="turn.test")
        await start(one, two, turn=[account])
        chosen, _ = await asyncio.gather(one.connection.connected(), two.connection.connected())
        assert chosen.kind == "relay"
        await exchange(one, two)
    stream._system_context.cache_clear()


async def test_relay_only_tells_nothing_of_the_sockets() -> None:
    """No line, and no check, leads back to where the sides are."""
    async with front() as running, pair(relay_only=True) as (one, two):
        account = TurnAccount(running.address, "user", "password")
        await start(one, two, turn=[account], stun=[running.address])
        await asyncio.gather(one.connection.connected(), two.connection.connected())
        await exchange(one, two)
        for side in (one, two):
            assert [line.type for line in side.told()] == [CandidateType.RELAYED]
            assert not any(side.socket.local.host in line for line in side.lines)


async def test_a_lost_relayed_address_is_not_used_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server was replaced by one that knows nothing of it: said at the next refresh, not by silence."""
    granted = Upkeep.granted
    monkeypatch.setattr(Upkeep, "granted", lambda self, seconds, now: granted(self, 1, now))
    async with pair(relay_only=True) as (one, two):
        async with front() as running:
            server = running.address
            await start(one, two, turn=[TurnAccount(server, "user", "password")])
            await asyncio.gather(one.connection.connected(), two.connection.connected())
        async with front(server):
            await one.until(lambda: any(isinstance(event, PairLost) for event in one.events))
        lost = [event.reason for event in one.events if isinstance(event, PairLost)]
        assert lost == [LossReason.LOCAL_REMOVED]
        with pytest.raises(NoPath):
            one.connection.send(b"nowhere")


async def test_a_relayed_address_ends_with_the_stream_to_its_server() -> None:
    """What goes by it is lost, and that is told."""
    async with pair(relay_only=True) as (one, two):
        async with front() as running:
            account = TurnAccount(running.address, "user", "password", Transport.TCP)
            await start(one, two, turn=[account])
            await asyncio.gather(one.connection.connected(), two.connection.connected())
        await one.until(lambda: any(isinstance(event, PairLost) for event in one.events))
        with pytest.raises(NoPath):
            one.connection.send(b"nowhere")


async def test_a_turn_server_that_nobody_reaches_by_tcp_is_done_without() -> None:
    """The end of candidates is told."""
    async with pair() as (one, _), endpoint() as nobody:
        one.connection.add_socket(one.socket.local)
        account = TurnAccount(nobody.local, "user", "password", Transport.TCP)
        await one.connection.gather(turn=[account])
        assert [line.type for line in one.told()] == [CandidateType.HOST]
        assert one.lines[-1] == "end-of-candidates"


async def test_a_relayed_address_that_comes_too_late_is_given_back() -> None:
    """Nobody waits for it any more; the next gathering asks anew."""
    async with front() as running, pair() as (one, _):
        answers: list[tuple[bytes, Address]] = []

        def hold(data: bytes, source: Address) -> None:
            """The demand for credentials is let through; what follows it is late."""
            answers.append((data, source))
            if len(answers) == 1:
                one.take(data, source, one.socket.local)

        one.socket.take = hold
        one.connection.add_socket(one.socket.local)
        account = TurnAccount(running.address, "user", "password")
        await one.connection.gather(turn=[account], timeout=0.5)
        assert [line.type for line in one.told()] == [CandidateType.HOST]
        one.use(one.socket)
        for data, source in answers[1:]:
            one.take(data, source, one.socket.local)
        await until(lambda: running.is_idle)
        while one.told()[-1].type is not CandidateType.RELAYED:
            await one.connection.gather(turn=[account])


async def test_a_side_that_moves_often_is_let_in_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session may name its own hosts; one that names too many at a time is not followed."""
    permitted: list[str] = []
    monkeypatch.setattr(RelayedAddress, "permit_soon", lambda self, peer: permitted.append(peer.host))
    relays = IceRelays(send=lambda transmit: None, on_data=lambda *_: None, on_lost=lambda relayed: None)
    account = TurnAccount(Address("192.0.2.1", 3478), "user", "password")
    allocating = asyncio.ensure_future(relays.allocate(account, Address("192.0.2.2", 1)))
    await asyncio.sleep(0)
    for session in range(20):
        relays.begin_anew()
        for host in range(100):
            relays.permit(Address(f"198.51.{session}.{host}", 1))
    await relays.close()
    assert await asyncio.wait({allocating}) == ({allocating}, set())
    assert len(permitted) == MAX_PEERS
    assert [f"198.51.15.{host}" in permitted for host in (0, 63, 64)] == [True, True, False]


async def test_a_socket_that_is_given_up_gives_its_relayed_address_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server's confirmation is heard, and nothing is waited for after that."""
    monkeypatch.setattr("crowline.net.relayed_address.CLOSE_LIMIT", 10 * PATIENCE)
    async with front() as running, pair() as (one, _):
        account = TurnAccount(running.address, "user", "password")
        one.connection.add_socket(one.socket.local)
        await one.connection.gather(turn=[account])
        assert not running.is_idle
        await one.connection.remove_socket(one.socket.local)
        assert running.is_idle


async def test_a_refused_relay_is_asked_for_again_by_the_next_gathering() -> None:
    """With another password, for example."""
    async with front() as running, pair() as (one, _):
        one.connection.add_socket(one.socket.local)
        kinds = []
        for password in ("wrong", "password", "password"):
            await one.connection.gather(turn=[TurnAccount(running.address, "user", password)])
            kinds.append(len(one.told()))
        assert kinds == [1, 2, 2]


def only_to(side: Side, server: Address) -> None:
    """What leaves for anywhere else is lost."""
    send = side.socket.write
    side.socket.write = lambda data, destination: (  # type: ignore[method-assign]
        send(data, destination) if destination == server else None
    )

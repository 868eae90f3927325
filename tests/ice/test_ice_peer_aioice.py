"""Sessions with aioice, an agent of somebody else, over real sockets on the loopback interface."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType
from crowline.ice.events import IceEvent, PairNominated, PairValid, RoleChanged
from crowline.ice.pair import ValidPair
from crowline.stun.message import is_stun
from needs import missing

try:
    import aioice
    import aioice.ice
except ImportError:
    aioice = None  # type: ignore[assignment]

pytestmark = pytest.mark.peer

LIMIT = 20.0  # seconds for a whole session; a good one takes a few hundredths


class Driver(asyncio.DatagramProtocol):
    """The least that an agent needs: one socket, one timer, a list of events and a queue of data."""

    def __init__(self, agent: IceAgent) -> None:
        self.agent = agent
        self.events: list[IceEvent] = []
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard = 0
        self.changed = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.base = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        source = Address(*addr[:2])
        if is_stun(data):
            self.heard += 1
            self.agent.receive(data, source, self.loop.time(), self.base)
            self.pump()
        elif self.agent.is_valid(self.base, source):
            self.data.put_nowait(data)

    def pump(self) -> None:
        while (event := self.agent.next_event()) is not None:
            self.events.append(event)
        self.changed.set()
        while (transmit := self.agent.next_transmit()) is not None:
            self.send(bytes(transmit.data), transmit.destination)
        if self.timer is not None:
            self.timer.cancel()
        deadline = self.agent.next_timeout()
        self.timer = None if deadline is None else self.loop.call_at(deadline, self.wake)

    def wake(self) -> None:
        self.agent.handle_timeout(self.loop.time())
        self.pump()

    def send(self, data: bytes, destination: Address) -> None:
        self.transport.sendto(data, (destination.host, destination.port))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def close(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.transport.close()


class Session:
    """Our agent and theirs, gathered and introduced to each other but not started."""

    def __init__(self, driver: Driver, theirs: Any) -> None:
        self.driver = driver
        self.theirs = theirs
        self.ours = driver.agent
        self.candidate = CandidateFactory().host(driver.base)

    async def introduce(self) -> None:
        now = self.driver.loop.time()
        self.ours.add_local_candidate(self.candidate, now)
        self.ours.end_of_local_candidates(now)
        self.theirs.remote_username = self.ours.ufrag
        self.theirs.remote_password = self.ours.pwd
        self.ours.set_remote(self.theirs.local_username, self.theirs.local_password, now)

    async def tell_them(self) -> None:
        await self.theirs.add_remote_candidate(to_aioice(self.candidate))
        await self.theirs.add_remote_candidate(None)

    def tell_us(self) -> None:
        now = self.driver.loop.time()
        for candidate in self.theirs.local_candidates:
            self.ours.add_remote_candidate(from_aioice(candidate), now)
        self.ours.end_of_remote_candidates(now)
        self.driver.pump()

    async def connect(self) -> ValidPair:
        async with asyncio.timeout(LIMIT):
            await self.theirs.connect()
            await self.driver.until(lambda: self.ours.selected is not None)
        assert self.ours.selected is not None
        return self.ours.selected

    async def talk(self, pair: ValidPair) -> None:
        async with asyncio.timeout(LIMIT):
            self.driver.send(b"\xffours", pair.remote.address)
            assert await self.theirs.recv() == b"\xffours"
            await self.theirs.send(b"\xfftheirs")
            assert await self.driver.data.get() == b"\xfftheirs"


def to_aioice(candidate: Candidate) -> Any:
    return aioice.Candidate(
        foundation=candidate.foundation,
        component=candidate.component,
        transport=candidate.transport,
        priority=candidate.priority,
        host=candidate.address.host,
        port=candidate.address.port,
        type=candidate.type.value,
    )


def from_aioice(candidate: Any) -> Candidate:
    return Candidate(
        candidate.foundation,
        candidate.component,
        candidate.transport,
        candidate.priority,
        Address.parse(candidate.host, candidate.port),
        CandidateType(candidate.type),
    )


@asynccontextmanager
async def session(
    monkeypatch: pytest.MonkeyPatch, *, we_control: bool, they_control: bool, **options: Any
) -> AsyncIterator[Session]:
    if aioice is None:
        missing("aioice is not installed")
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])
    agent = IceAgent(we_control, entropy=os.urandom, ta=0.02, **options)
    _, driver = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Driver(agent), local_addr=("127.0.0.1", 0)
    )
    theirs = aioice.Connection(ice_controlling=they_control)
    try:
        await theirs.gather_candidates()
        both = Session(driver, theirs)
        await both.introduce()
        yield both
    finally:
        agent.close()
        driver.close()
        await theirs.close()


@pytest.mark.parametrize("we_control", [True, False])
async def test_a_whole_session(monkeypatch: pytest.MonkeyPatch, we_control: bool) -> None:
    """Candidates, checks, nomination and data in both directions, in both roles."""
    async with session(monkeypatch, we_control=we_control, they_control=not we_control) as both:
        await both.tell_them()
        both.tell_us()
        pair = await both.connect()
        assert pair.kind == "lan"
        assert pair.rtt is not None and pair.rtt < 1.0
        await both.talk(pair)
        assert {type(event) for event in both.driver.events} == {PairValid, PairNominated}


@pytest.mark.parametrize("both_control", [True, False])
async def test_a_role_conflict(monkeypatch: pytest.MonkeyPatch, both_control: bool) -> None:
    """Both claim the same role: one side gives in, and the session works."""
    async with session(monkeypatch, we_control=both_control, they_control=both_control) as both:
        await both.tell_them()
        both.tell_us()
        await both.talk(await both.connect())
        assert both.ours.controlling is not both.theirs.ice_controlling
        switched = [event for event in both.driver.events if isinstance(event, RoleChanged)]
        assert len(switched) == (both.ours.controlling is not both_control)


async def test_their_checks_come_before_their_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """We know only their password: their check makes the peer-reflexive candidate that is used."""
    async with session(monkeypatch, we_control=True, they_control=False) as both:
        await both.tell_them()
        pair = await both.connect()
        assert pair.remote.type is CandidateType.PEER_REFLEXIVE
        await both.talk(pair)


async def test_our_checks_come_before_our_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """They know only our password, and learn our address from our check."""
    async with session(monkeypatch, we_control=False, they_control=True) as both:
        both.tell_us()
        connecting = asyncio.create_task(both.theirs.connect())
        async with asyncio.timeout(LIMIT):
            await both.driver.until(lambda: both.ours.selected is not None)
            await both.theirs.add_remote_candidate(None)
            await connecting
        assert both.ours.selected is not None
        await both.talk(both.ours.selected)


async def test_each_side_gives_the_other_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their consent checks, sped up, are all answered by us, and ours by them."""
    async with session(monkeypatch, we_control=True, they_control=False) as both:
        monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
        await both.tell_them()
        both.tell_us()
        pair = await both.connect()
        proven = pair.proven_at
        # A proof that looks old makes the first consent check leave at once.
        pair.proven_at = proven - 10.0
        now = both.driver.loop.time()
        assert both.ours.use(pair, now)
        both.driver.wake()
        async with asyncio.timeout(LIMIT):
            await both.driver.until(lambda: pair.proven_at >= now)
            heard = both.driver.heard
            # Six checks without an answer would close their side.
            await both.driver.until(lambda: both.driver.heard >= heard + 10)
        await both.talk(pair)


async def test_their_pair_is_lost_when_we_fall_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed agent of ours answers nothing, and they notice by missing consent."""
    async with session(monkeypatch, we_control=True, they_control=False) as both:
        monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.05)
        monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)
        await both.tell_them()
        both.tell_us()
        await both.connect()
        both.ours.close()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(LIMIT):
                await both.theirs.recv()

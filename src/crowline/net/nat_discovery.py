"""What kind of translator this machine is behind: STUN servers are asked, by UDP and TCP, in two seconds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.nat64 import Nat64Prefix
from crowline.net.fresh_sockets import FreshSockets, Measurement, measured
from crowline.net.interfaces import source_towards
from crowline.net.pump import Pump
from crowline.net.tcp_discovery import discover_tcp
from crowline.punch.nat_profile import NatProfile
from crowline.punch.tcp_profile import TcpProfile
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.stun.nat_discovery import MAX_OTHERS, QUICK, Discovered, Foreseen, NatDiscovery
from crowline.stun.nat_evidence import second_address
from crowline.stun.nat_findings import Facet, Findings, Reason

MAX_SERVERS = 4
# Seconds that a server which knows RFC 5780 may be slower than the first to answer.
GRACE = 0.1
# Seconds after which TCP is asked: the UDP ports are sampled by then, and a translator may count both alike.
TCP_DELAY = 0.3


@dataclass(frozen=True, slots=True)
class ChosenServer:
    """The server that is asked, further ones, and whether it answers."""

    server: Address
    further: tuple[Address, ...]
    answers: bool


async def discover_nat(
    servers: Sequence[Address],
    *,
    own: str | None = None,
    prefix: Nat64Prefix | None = None,
    tcp: bool = True,
    entropy: Callable[[int], bytes] = os.urandom,
    on_early: Callable[[NatProfile], None] | None = None,
) -> NatProfile:
    """The profile of the translator between the host `own` and the internet, within about two seconds.

    `servers` are STUN servers of one family, of which the first four count: one with a second address
    (RFC 5780) is asked everything; further ones show mappings, too. `own` is by default the address by which
    packets to the first server leave. `prefix` is the NAT64 prefix of servers that are IPv4. Sockets are
    opened for this, and closed; nothing is sent by those of anybody else.

    `on_early` gets what will probably come out, after about a third of the time: mapping and ports as they
    are, filtering and hairpinning by the silence so far, TCP not at all. It is not called where the end is as
    near.

    Silence is a result, not an error. Raises `UsageError` without servers and for a mixture of families,
    `LocalProblem` where no packet can leave at all.
    """
    host = own_host(servers, own)
    asked = tuple(dict.fromkeys(servers))[:MAX_SERVERS]
    choice = asyncio.ensure_future(choose_server(asked, host, prefix, entropy))
    by_tcp = asyncio.ensure_future(_tcp_profile(choice, asked, host, prefix)) if tcp else None
    try:
        profile = NatProfile.of(await _discover(await choice, host, prefix, entropy, on_early))
        return profile if by_tcp is None else profile.with_tcp(await by_tcp)
    finally:
        for task in (choice, by_tcp):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])


def own_host(servers: Sequence[Address], own: str | None = None) -> str:
    """Where questions to those servers leave from. Raises `UsageError` or `LocalProblem`."""
    if not servers or len({server.is_ipv6 for server in servers}) > 1:
        raise UsageError("a discovery needs servers of one family")
    host = own or source_towards(servers[0])
    if host is None:
        raise LocalProblem(f"This machine has no way to {servers[0].host}.", hint="Is it offline?")
    return host


async def choose_server(
    servers: Sequence[Address],
    host: str,
    prefix: Nat64Prefix | None = None,
    entropy: Callable[[int], bytes] = os.urandom,
) -> ChosenServer:
    """The first to answer that has a second address, or else the first to answer; all are asked at once.

    Of one server nothing is asked here: the discovery will see whether it answers.
    """
    if len(servers) == 1:
        return ChosenServer(servers[0], (), answers=True)
    answers = await _first_answers(servers, host, prefix, entropy)
    order = [*(answer.server for answer in answers), *servers]
    best = next((answer.server for answer in answers if _has_second(answer, prefix)), order[0])
    return ChosenServer(best, tuple(each for each in dict.fromkeys(order) if each != best), bool(answers))


def _has_second(answer: Mapped, prefix: Nat64Prefix | None) -> bool:
    named = () if answer.other is None else (answer.other,)
    return second_address(answer.server, named, prefix) is not None


async def _first_answers(
    servers: Sequence[Address], host: str, prefix: Nat64Prefix | None, entropy: Callable[[int], bytes]
) -> list[Mapped]:
    """What the servers say of one socket, the quickest first, until one has a second address."""
    client = BindingClient(entropy=entropy, schedule=QUICK)
    answers: list[Mapped] = []
    is_over = asyncio.Event()
    missing = len(servers)
    loop = asyncio.get_running_loop()

    def heard(event: BindingEvent) -> None:
        nonlocal missing
        missing -= 1
        if isinstance(event, Mapped):
            answers.append(event)
            timers.append(loop.call_later(GRACE, is_over.set))
            if _has_second(event, prefix):
                is_over.set()
        if not missing:
            is_over.set()

    def received(data: memoryview, source: Address, local: Address) -> None:
        client.receive(data, source, pump.now, local)
        pump.flush()

    timers: list[asyncio.TimerHandle] = []
    with FreshSockets(host, 1, received) as sockets:
        pump: Pump[Transmit, BindingEvent] = Pump(client, sockets.send, heard)
        for server in servers:
            client.query(server, pump.now, sockets.addresses[0])
        pump.flush()
        try:
            await is_over.wait()
        finally:
            pump.close()
            for timer in timers:
                timer.cancel()
    return answers


async def _discover(
    choice: ChosenServer,
    host: str,
    prefix: Nat64Prefix | None,
    entropy: Callable[[int], bytes],
    on_early: Callable[[NatProfile], None] | None,
) -> Findings:
    """Drive the discovery of UDP; without a server that answers there is nothing to be found."""
    if not choice.answers:
        facets = (Facet.MAPPING, Facet.FILTERING, Facet.HAIRPINNING)
        return Findings(choice.server, unknown=dict.fromkeys(facets, Reason.NO_ANSWER))
    discovery: Measurement[Foreseen | Discovered] = NatDiscovery(
        choice.server,
        entropy=entropy,
        prefix=prefix,
        others=choice.further,
        foresees=on_early is not None,
    )

    def is_end(event: Foreseen | Discovered) -> bool:
        if on_early is not None and isinstance(event, Foreseen):
            on_early(NatProfile.of(event.findings))
        return isinstance(event, Discovered)

    end = await measured(discovery, host, is_end)
    return end.findings


async def _tcp_profile(
    choice: asyncio.Future[ChosenServer], servers: Sequence[Address], host: str, prefix: Nat64Prefix | None
) -> TcpProfile:
    """TCP is asked whether or not UDP answers, of the chosen server where there is one by then."""
    await asyncio.wait([choice], timeout=TCP_DELAY)
    if choice.done():
        await asyncio.sleep(TCP_DELAY)
        server, further = choice.result().server, choice.result().further
    else:
        server, further = servers[0], tuple(servers[1:])
    return TcpProfile.of(await discover_tcp(server, further[:MAX_OTHERS], own=host, prefix=prefix))

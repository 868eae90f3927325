"""Everything that two sides forward for each other over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from crowline.api.forwarding.connections import Connections, refuse
from crowline.api.forwarding.doors import Door, SocksDoor, door
from crowline.api.forwarding.events import ForwardEvent, RuleDenied, RuleReady, Shared
from crowline.api.forwarding.flows import Flows
from crowline.api.forwarding.gate import Consent, Gate
from crowline.api.forwarding.talk import read_body
from crowline.api.peer import Peer, Stream
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import CrowlineError, LocalProblem, ProtocolViolation, Refused
from crowline.forward.messages import (
    MAX_RULES,
    Arrived,
    Connect,
    Control,
    Denied,
    Granted,
    Listen,
    Reach,
    Reason,
    Request,
    Roam,
    decode_control,
    decode_head,
    encode,
)
from crowline.forward.permits import Permit, parse_listen_permit
from crowline.forward.rules import (
    LOOPBACK,
    Dynamic,
    Local,
    Remote,
    Rule,
    Target,
    parse_dynamic,
    parse_local,
    parse_remote,
)
from crowline.net.chores import Chores
from crowline.net.patience import within

__all__ = [
    "FORWARD",
    "Bound",
    "Forwarder",
    "Permit",
    "Request",
    "Rule",
    "binding",
    "describe",
    "forward_ports",
    "parse_dynamic",
    "parse_listen_permit",
    "parse_local",
    "parse_remote",
]

FORWARD = Service("forward")
# Seconds in which a stream has to say what it is.
_HEAD_LIMIT = 10.0
# Streams of the other side that are served at once, those included that it has given up and that wind down.
MAX_SERVED = 128


@dataclass(frozen=True, slots=True)
class Bound:
    """A rule of this side, and its door, where programs of this machine come in by it."""

    rule: Rule
    door: Door | SocksDoor | None


@contextmanager
def binding(rules: Sequence[Rule]) -> Iterator[list[Bound]]:
    """The ports of this machine that `rules` need, inside the block. Raises `LocalProblem`."""
    bound: list[Bound] = []
    try:
        for rule in rules:
            bound.append(Bound(rule, _door(rule)))
        yield bound
    finally:
        for each in bound:
            if each.door is not None:
                each.door.close()


class Forwarder:
    """One side of it. `gate` says what the other side may have; `tell` gets what happens."""

    def __init__(
        self, peer: Peer, bound: Sequence[Bound], gate: Gate, tell: Callable[[ForwardEvent], None]
    ) -> None:
        self._peer = peer
        self._bound = dict(enumerate(bound))
        self._gate = gate
        self._tell = tell
        self._connections = Connections(peer, gate, tell)
        self._flows = Flows(peer, gate, self._connections, tell)
        self._unanswered = set(self._bound)
        self._denied: dict[int, Reason] = {}
        # The other side's rules, and what listens here for them.
        self._asked: set[int] = set()
        self._doors: list[Door] = []
        self._questions: asyncio.Queue[Request] = asyncio.Queue()
        self._serving = asyncio.Semaphore(MAX_SERVED)
        self._chores = Chores()

    async def run(self) -> None:
        """Until the other side leaves. Raises `Refused` where it agrees to nothing of what this side asks."""
        try:
            stream = await agreed_stream(self._peer, FORWARD)
            for number, bound in self._bound.items():
                await stream.write(encode(_request(number, bound.rule)))
            tasks = [
                asyncio.ensure_future(work)
                for work in (self._hear(stream), self._decide(stream), self._accept(), self._flows.run())
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for task in tasks:
                    if task.done():
                        task.result()
            except CrowlineError:
                if not self._peer.has_left:
                    raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._chores.close()
            for each in self._doors:
                each.close()

    async def _hear(self, stream: Stream) -> None:
        """The other side's questions and answers."""
        while True:
            self._on_message(decode_control(await read_body(stream)))
            if self._bound and len(self._denied) == len(self._bound):
                reasons = {reason.sentence for reason in self._denied.values()}
                raise Refused(f"Nothing that was asked for was granted: {', '.join(sorted(reasons))}.")

    def _on_message(self, message: Control) -> None:
        if isinstance(message, Reach | Roam | Listen):
            if message.rule in self._asked or len(self._asked) >= MAX_RULES:
                raise ProtocolViolation("The other side asks for more than there may be.")
            self._asked.add(message.rule)
            self._questions.put_nowait(message)
            return
        if message.rule not in self._unanswered:
            raise ProtocolViolation("The other side answers what nobody asked.")
        self._unanswered.discard(message.rule)
        rule = self._bound[message.rule].rule
        if isinstance(message, Denied):
            self._denied[message.rule] = Reason(message.reason)
            self._tell(RuleDenied(str(rule), Reason(message.reason)))
        else:
            self._begin(message, rule)

    def _begin(self, granted: Granted, rule: Rule) -> None:
        number, entrance = granted.rule, self._bound[granted.rule].door
        if isinstance(rule, Remote):
            self._gate.remotes[number] = rule
            port = granted.port or rule.bind.port
            self._tell(RuleReady(str(replace(rule, bind=Target(rule.bind.host, port))), port))
            return
        assert entrance is not None
        if isinstance(entrance, SocksDoor):
            self._chores.beside(entrance.serve(self._connections, self._flows, number))
        else:
            transport = "tcp" if isinstance(rule, Dynamic) else rule.transport

            def connect(flow: int | None) -> Connect:
                return Connect(number, transport, flow=flow)

            self._chores.beside(entrance.serve(self._connections, self._flows, connect))
        bound = Target(entrance.address.host, entrance.address.port)
        self._tell(RuleReady(str(replace(rule, bind=bound)), entrance.address))

    async def _decide(self, stream: Stream) -> None:
        """The other side's questions, one after the other: a person may have to answer."""
        while True:
            request = await self._questions.get()
            answer: Control = Denied(request.rule, Reason.NOT_ALLOWED)
            if await self._gate.decide(request):
                answer = self._listen(request) if isinstance(request, Listen) else Granted(request.rule)
            if isinstance(answer, Granted):
                self._tell(Shared(describe(request)))
            await stream.write(encode(answer))

    def _listen(self, request: Listen) -> Control:
        """Listen here for the other side."""
        try:
            entrance = door(request.transport, Target(request.host or LOOPBACK, request.port))
        except LocalProblem:
            return Denied(request.rule, Reason.PORT_TAKEN)
        self._doors.append(entrance)

        def arrived(flow: int | None) -> Arrived:
            return Arrived(request.rule, flow)

        self._chores.beside(entrance.serve(self._connections, self._flows, arrived))
        return Granted(request.rule, entrance.address.port)

    async def _accept(self) -> None:
        async for stream in self._peer.streams():
            await self._serving.acquire()
            self._chores.beside(self._serve(stream))

    async def _serve(self, stream: Stream) -> None:
        """One stream of the other side."""
        bodies: list[bytes] = []

        async def read() -> None:
            bodies.append(await read_body(stream))

        try:
            if not await within(_HEAD_LIMIT, read()):
                await refuse(stream, Reason.SILENT)
                return
            head = decode_head(bodies[0])
            if head.flow is not None:
                await self._flows.serve(stream, head)
            else:
                await self._connections.serve(stream, head)
        except CrowlineError:
            stream.abort()
        finally:
            self._serving.release()


async def forward_ports(
    peer: Peer,
    *,
    local: Sequence[str] = (),
    remote: Sequence[str] = (),
    dynamic: Sequence[str] = (),
    allow: Sequence[str] = (),
    allow_listen: Sequence[str] = (),
    consent: Consent | None = None,
    tell: Callable[[ForwardEvent], None] | None = None,
) -> None:
    """Forward ports until the other side, which calls this too, leaves; texts as of `crowline forward`.

    `consent` is awaited for what the other side asks for and `allow` does not cover; without it that is
    refused. `tell` gets what happens. Raises `UsageError`, `LocalProblem` for a port that is taken, `Refused`
    where the other side grants nothing, and what ends the connection.
    """

    async def refuse_all(request: Request) -> bool:
        return False

    permits = [Permit.parse(text) for text in allow]
    gate = Gate(permits, [parse_listen_permit(text) for text in allow_listen], consent or refuse_all)
    rules: list[Rule] = [*map(parse_local, local), *map(parse_remote, remote), *map(parse_dynamic, dynamic)]
    with binding(rules) as bound:
        await Forwarder(peer, bound, gate, tell or (lambda _: None)).run()


def describe(request: Request) -> str:
    """What the other side wants, for a person: from its side's view `here` is this machine."""
    if isinstance(request, Roam):
        return "to use this computer's way to the internet, by SOCKS5"
    where = Target(request.host or LOOPBACK, request.port)
    if isinstance(request, Listen):
        return f"that this computer listens at {where} ({request.transport}) for its {request.target}"
    return f"to reach {where} ({request.transport}) from this computer"


def _request(number: int, rule: Rule) -> Request:
    if isinstance(rule, Dynamic):
        return Roam(number)
    if isinstance(rule, Local):
        return Reach(number, rule.transport, rule.target.host, rule.target.port)
    return Listen(number, rule.transport, rule.bind.host, rule.bind.port, str(rule.target))


def _door(rule: Rule) -> Door | SocksDoor | None:
    if isinstance(rule, Remote):
        return None
    return SocksDoor(rule.bind) if isinstance(rule, Dynamic) else door(rule.transport, rule.bind)

"""The other side of an ICE agent, moved by hand: every message is written by the test."""

from __future__ import annotations

import random
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import COMPONENT, UDP, Candidate, CandidateFactory, CandidateType
from crowline.ice.events import IceEvent, Noticed, Oddity
from crowline.stun.attributes import (
    AnyAttribute,
    ErrorCode,
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from crowline.stun.message import Message, MessageClass, Method, Received, parse

BASE = Address("192.0.2.1", 1000)
REMOTE = Address("198.51.100.2", 2000)
OTHER_REMOTE = Address("198.51.100.3", 3000)
STRANGER = Address("203.0.113.66", 6666)
HOST_PRIORITY = 2130706431
LOW_TIE, HIGH_TIE = 0, 2**64 - 1


def remote(address: Address, priority: int = HOST_PRIORITY, foundation: str = "1") -> Candidate:
    return Candidate(foundation, COMPONENT, UDP, priority, address, CandidateType.HOST)


def events(agent: IceAgent) -> list[IceEvent]:
    """What has happened to pairs, to roles and to the agent; oddities are left out."""
    return [event for event in all_events(agent) if not isinstance(event, Noticed)]


def noticed(agent: IceAgent) -> list[Oddity]:
    """The oddities alone."""
    return [event.oddity for event in all_events(agent) if isinstance(event, Noticed)]


def all_events(agent: IceAgent) -> list[IceEvent]:
    found = []
    while (event := agent.next_event()) is not None:
        found.append(event)
    return found


class Puppet:
    """Owns an agent with one host candidate and knows both passwords."""

    ufrag = "puppet"
    pwd = "a password of the puppet"

    def __init__(self, controlling: bool, *, seed: int = 1, base: Address = BASE, **options: Any) -> None:
        self.random = random.Random(seed)
        self.agent = self.make(controlling, **options)
        self.base = base
        self.factory = CandidateFactory()
        self.agent.add_local_candidate(self.factory.host(base), 0.0)

    def make(self, controlling: bool, **options: Any) -> Any:
        """The agent to own."""
        options.setdefault("ta", 0.005)
        return IceAgent(controlling, entropy=self.random.randbytes, **options)

    def meet(self, *remotes: Candidate, now: float = 0.0) -> None:
        """Give the agent our credentials and candidates, without an end of candidates."""
        self.agent.set_remote(self.ufrag, self.pwd, now)
        for candidate in remotes or (remote(REMOTE),):
            self.agent.add_remote_candidate(candidate, now)

    def end_candidates(self, now: float = 0.0) -> None:
        self.agent.end_of_local_candidates(now)
        self.agent.end_of_remote_candidates(now)

    def sent(self) -> list[Transmit]:
        """What the agent wants to send, in order."""
        transmits = []
        while (transmit := self.agent.next_transmit()) is not None:
            transmits.append(transmit)
        return transmits

    def sent_by(self, end: float) -> list[tuple[float, Transmit]]:
        """All that the agent sends until the time `end` while nobody answers, with times."""
        found: list[tuple[float, Transmit]] = [(0.0, transmit) for transmit in self.sent()]
        while (now := self.agent.next_timeout()) is not None and now <= end:
            self.agent.handle_timeout(now)
            found += [(now, transmit) for transmit in self.sent()]
        return found

    def one(self) -> Transmit:
        """The only thing the agent wants to send."""
        (transmit,) = self.sent()
        return transmit

    def receive(self, data: bytes, source: Address = REMOTE, now: float = 0.0) -> None:
        self.agent.receive(data, source, now, self.base)

    def claim(self, controlling: bool | None = None, tie: int | None = None) -> AnyAttribute:
        ours = not self.agent.controlling if controlling is None else controlling
        number = self.random.getrandbits(64) if tie is None else tie
        return IceControlling(number) if ours else IceControlled(number)

    def check(
        self,
        *extra: AnyAttribute,
        use_candidate: bool = False,
        claim: AnyAttribute | None = None,
        username: str | None = None,
        key: str | None = None,
        signed: bool = True,
        priority: int | None = 1862270975,
    ) -> bytes:
        """A check of ours."""
        attributes: list[AnyAttribute] = [Username(username or f"{self.agent.ufrag}:{self.ufrag}")]
        if priority is not None:
            attributes.append(Priority(priority))
        attributes.append(claim or self.claim())
        if use_candidate:
            attributes.append(UseCandidate())
        message = Message(
            Method.BINDING, MessageClass.REQUEST, self.random.randbytes(12), (*attributes, *extra)
        )
        password = (key or self.agent.pwd).encode()
        return message.encode(key=password if signed else None, fingerprint=True)

    def success(
        self,
        transmit: Transmit,
        *,
        mapped: Address | None = None,
        key: str | None = None,
        signed: bool = True,
    ) -> bytes:
        """Our answer to a check of the agent; it saw the agent at `mapped`, by default its base."""
        answer = request(transmit).message.answer(
            MessageClass.SUCCESS, XorMappedAddress(mapped or transmit.local or self.base)
        )
        return answer.encode(key=(key or self.pwd).encode() if signed else None, fingerprint=True)

    def error(self, transmit: Transmit, code: int, *, signed: bool = True) -> bytes:
        answer = request(transmit).message.answer(MessageClass.ERROR, ErrorCode(code, "no"))
        return answer.encode(key=self.pwd.encode() if signed else None, fingerprint=True)

    def answer(self, transmit: Transmit, now: float, *, mapped: Address | None = None) -> None:
        """Let a check of the agent succeed."""
        self.receive(self.success(transmit, mapped=mapped), transmit.destination, now)


def request(transmit: Transmit) -> Received:
    return parse(transmit.data)


def requests(transmits: list[Transmit]) -> list[Transmit]:
    """Only the checks among them."""
    return [each for each in transmits if parse(each.data).message.message_class is MessageClass.REQUEST]


def error_code(transmit: Transmit) -> int | None:
    error = parse(transmit.data).message.get(ErrorCode)
    return None if error is None else error.code

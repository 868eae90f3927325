"""Two sides in a virtual internet that talk all the time, with a running checksum of each direction."""

from __future__ import annotations

import hashlib
from typing import Any

from crowline.lab.presets import PRESETS
from crowline.lab.profile import Profile
from crowline.lab.virtual import Internet
from crowline.lab.virtual_attempt import Geometry
from crowline.lab.virtual_peer import GREETING, VirtualPeer
from crowline.lab.virtual_server import VirtualServer
from crowline.lab.virtual_site import build_site
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role
from crowline.session.events import LinkChosen, SessionEvent, StreamReadable

NEVER = 1e9  # seconds that a packet takes on a way that is cut


class Talker(VirtualPeer):
    """A side whose stream 0 anybody may write to; it sums up what arrives."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.changes: list[tuple[float, str, str]] = []  # time, kind of path, reason
        self.written = hashlib.sha256(GREETING)
        self.arrived = hashlib.sha256()
        self.sent = len(GREETING)
        self.count = 0
        super().__init__(*arguments, **options)

    @property
    def kind(self) -> str:
        """What carries the streams: hub, relay, direct."""
        return "hub" if self.link is None else self.link.category

    @property
    def agent(self) -> Any:
        return self._agent

    def say(self, data: bytes) -> None:
        self.written.update(data)
        self.sent += len(data)
        self._session.write(0, data)
        self._session_pump.flush()

    def _on_session_event(self, event: SessionEvent) -> None:
        if isinstance(event, LinkChosen) and event.link is not None:
            self.changes.append((self._internet.now, self.kind, event.reason))
        elif isinstance(event, StreamReadable):
            while data := bytes(self._session.read(event.stream, 1 << 16)):
                self.arrived.update(data)
                self.count += len(data)
            if self.greeted is None:
                self.greeted = self._internet.now
                if self.role is Role.JOIN:
                    self._session.write(0, GREETING)


class Talk:
    """A host and a joining side, which have met and rested until their first path is in use."""

    def __init__(self, a: Profile | str, b: Profile | str, seed: int = 0, calm: float = 3.0) -> None:
        geometry = Geometry()
        self.internet = Internet(seed, delay=geometry.between)
        self.random = self.internet.random
        self.server = VirtualServer(self.internet)
        profiles = [PRESETS[each] if isinstance(each, str) else each for each in (a, b)]
        self.sites = [build_site(self.internet, profile, place) for place, profile in enumerate(profiles, 1)]
        for site in self.sites:
            self.internet.set_delay(site.place, self.server.host, geometry.to_server)
        self.sides: list[Talker] = []
        self._between = geometry.between
        self._add(0, None)
        self.run(calm)

    @property
    def now(self) -> float:
        return self.internet.now

    @property
    def kinds(self) -> list[str]:
        return [side.kind for side in self.sides]

    def cut(self) -> None:
        """Nothing that leaves from now on comes through between the two; both still reach the server."""
        self.internet.set_delay(self.sites[0].place, self.sites[1].place, NEVER)

    def mend(self) -> None:
        self.internet.set_delay(self.sites[0].place, self.sites[1].place, self._between)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.internet.call_at(end, lambda: None)
        self.internet.run(lambda: self.now >= end, limit=seconds)

    def talk(self, seconds: float, tick: float = 0.05, size: int = 500) -> float:
        """Both write a little, again and again; the longest time in which nothing came to one of them."""
        longest, since, counts = 0.0, [self.now] * 2, [side.count for side in self.sides]
        for _ in range(round(seconds / tick)):
            for side in self.sides:
                side.say(self.random.randbytes(self.random.randrange(1, size)))
            self.run(tick)
            for index, side in enumerate(self.sides):
                if side.count > counts[index]:
                    counts[index], since[index] = side.count, self.now
                longest = max(longest, self.now - since[index])
        return longest

    def is_whole(self) -> bool:
        """Whether everything that was written has arrived, once and in order."""
        one, other = self.sides
        return all(
            there.count == here.sent and there.arrived.digest() == here.written.digest()
            for here, there in ((one, other), (other, one))
        )

    def _add(self, number: int, code: Code | None) -> None:
        self.sides.append(
            Talker(
                self.internet,
                self.sites[number],
                self.server.address_for(self.sites[number].addresses),
                code=code,
                on_code=lambda code: self._add(1, code),
                on_progress=lambda: None,
            )
        )

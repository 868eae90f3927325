"""The links that are up, as paths that people can be told, and how much each kind has carried."""

from __future__ import annotations

from dataclasses import replace

from crowline.api.pair_links import Link
from crowline.api.path import Path, PathKind, PathTransport
from crowline.api.path_reasons import PathReasons
from crowline.base.transport import Transport
from crowline.link.choice import HUB_LINK
from crowline.session.events import LinkChosen
from crowline.session.links import BETTER_PATH, FIRST_PATH
from crowline.session.session import Session

_TRANSPORTS: dict[Transport, PathTransport] = {
    Transport.UDP: "udp",
    Transport.TCP: "tcp",
    Transport.TLS: "tls",
}


class PathBook:
    """Knows every link that is or was up by its session number; number 0 is link zero."""

    def __init__(self, session: Session, hub_url: str, reasons: PathReasons) -> None:
        self.up: dict[int, Link] = {}
        self._reasons = reasons
        self._session = session
        self._hub_url = hub_url
        self._has_hub = False
        self._current: Path | None = None
        # The link of `_current`, and why the session chose it.
        self._choice: tuple[int, str] = (HUB_LINK, "")
        self._kinds: dict[int, str] = {HUB_LINK: "hub"}
        self._transports: dict[int, Transport] = {}

    def add_hub(self) -> None:
        self._has_hub = True

    def remove_hub(self) -> None:
        self._has_hub = False

    def add(self, link: Link, transport: Transport) -> None:
        """`transport`: how its packets leave this machine."""
        self.up[link.number] = link
        self._transports[link.number] = transport
        self._kinds[link.number] = link.category

    def remove(self, number: int) -> bool:
        """Whether the link was up."""
        return self.up.pop(number, None) is not None

    @property
    def current(self) -> Path | None:
        """The path that carries the streams, with its latest round trip and what is known of it by now."""
        chosen = self._session.chosen
        if self._current is None or chosen is None:
            return None
        if chosen == self._choice[0] and (chosen == HUB_LINK or chosen in self.up):
            return self.describe(*self._choice)
        return replace(self._current, rtt=self._session.links.rtt(chosen) or self._current.rtt)

    def choose(self, event: LinkChosen) -> tuple[Path | None, Path | None]:
        """The path that carries the streams from now on, and the one before."""
        before = self._current
        # The link may have ended since the choice was made; the news of the next choice is on its way.
        gone = event.link is None or (event.link != HUB_LINK and event.link not in self.up)
        if gone or event.link is None:
            self._current = None
        else:
            self._choice = (event.link, event.reason)
            self._current = self.describe(*self._choice)
        return self._current, before

    def describe(self, number: int, reason: str) -> Path:
        """Link `number` as a path. Where `reason` lies in the link itself, the path says what that is."""
        if reason in (FIRST_PATH, BETTER_PATH):
            reason = self._merit(number)
        rtt = self._session.links.rtt(number)
        if number == HUB_LINK:
            return Path("hub", "ws", "", self._hub_url, rtt, reason)
        pair = self.up[number].pair
        kind: PathKind = "relay" if pair.kind == "relay" else "lan" if pair.kind == "lan" else "direct"
        rtt = rtt if rtt is not None else pair.rtt
        transport = _TRANSPORTS[self._transports[number]]
        return Path(kind, transport, str(pair.local.address), str(pair.remote.address), rtt, reason)

    def all(self) -> list[Path]:
        """Every usable path, the chosen one first."""
        chosen = self._session.chosen
        numbers = [HUB_LINK, *self.up] if self._has_hub else list(self.up)
        numbers.sort(key=lambda number: number != chosen)
        return [self.describe(n, "in use" if n == chosen else "kept warm") for n in numbers]

    def carried(self) -> dict[str, int]:
        """Stream bytes sent and received, by kind: hub, relay, direct."""
        totals = {"hub": 0, "relay": 0, "direct": 0}
        for number, kind in self._kinds.items():
            totals[kind] += sum(self._session.links.carried(number))
        return totals

    def _merit(self, number: int) -> str:
        return self._reasons.of_hub() if number == HUB_LINK else self._reasons.of_pair(self.up[number].pair)

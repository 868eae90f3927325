"""`crowline ping`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crowline.base.errors import NobodyCame
from crowline.cli.meet import carriage, meet
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.api.ping import Pong

DIRECT, RELAYED = 0, 20


@click.command()
@click.argument("code", required=False)
@click.option("-c", "--count", type=click.IntRange(min=0), default=10, help="Questions; 0: no end. [10]")
@click.option(
    "-i", "--interval", type=click.FloatRange(0.01, 3600), default=1.0, help="Seconds between them. [1]"
)
@click.option("--until", type=click.Choice(["direct"]), help="Stop as soon as an answer came directly.")
@place_options("--to", "--from")
@meeting_options
def ping(
    code: str | None,
    count: int,
    interval: float,
    until: str | None,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Measure the round trip to the other side, and say by which path.

    Without CODE this side shows one for the other, where `crowline ping CODE` is run; both sides measure.
    Exit code: 0 the path is direct, 20 it leads through a relay or the server, 3 nobody answered.
    """
    from crowline.cli.run import run

    check(flags, place)
    work = _ping(output, code, flags, place, count, interval, stops_when_direct=until is not None)
    click.get_current_context().exit(run(work))


async def _ping(
    output: Output,
    code: str | None,
    flags: MeetingFlags,
    place: PlaceFlags,
    count: int,
    interval: float,
    *,
    stops_when_direct: bool,
) -> int:
    from crowline.api.ping import pinging

    async with meet(output, flags, place, code, verb="ping") as peer:
        times = _Times()
        async with pinging(peer, count=count, interval=interval) as pinger:
            async for pong in pinger.pongs():
                times.add(pong)
                _show(output, pong)
                if stops_when_direct and times.is_direct:
                    break
        if not times.count:
            raise NobodyCame("The other side does not answer.")
        output.emit("done", sent=pinger.sent, received=times.count, **times.to_fields(), **carriage(peer))
        output.say(f"{times.count} of {pinger.sent} answered: {times}")
        return DIRECT if times.is_direct else RELAYED


class _Times:
    """Round trips in milliseconds, and whether the last one was direct."""

    def __init__(self) -> None:
        self.count = 0
        self.is_direct = False
        self._least = self._sum = self._most = 0.0

    def add(self, pong: Pong) -> None:
        rtt = pong.rtt * 1000
        self._least = min(self._least, rtt) if self.count else rtt
        self._most = max(self._most, rtt)
        self._sum += rtt
        self.count += 1
        self.is_direct = pong.path is not None and pong.path.is_direct

    def to_fields(self) -> dict[str, float]:
        times = {"min_ms": self._least, "average_ms": self._sum / self.count, "max_ms": self._most}
        return {name: round(value, 3) for name, value in times.items()}

    def __str__(self) -> str:
        average = self._sum / self.count
        return f"{self._least:.1f} ms at least, {average:.1f} on average, {self._most:.1f} at most"


def _show(output: Output, pong: Pong) -> None:
    path = pong.path
    output.emit(
        "pong",
        number=pong.number,
        rtt_ms=round(pong.rtt * 1000, 3),
        kind=path.kind if path is not None else None,
        transport=path.transport if path is not None else None,
    )
    by = "no path" if path is None else str(path)
    output.say(f"{pong.rtt * 1000:8.1f} ms   {by}")

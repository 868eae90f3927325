"""`crowline doctor --pair` and `crowline doctor CODE`: what can the two of us do, and why not more?"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from crowline.cli.output import Output, count, describe_path

if TYPE_CHECKING:
    from crowline.api.doctor.pair_examination import Measure, PairReport, PairTrial, SideFacts
    from crowline.api.path import Path

# Pairs shown to a person of those that work, and of the others; programs get all.
_PAIRS_SHOWN = 6


def doctor_pair(output: Output, code: str | None, *, server: str | None, timeout: float | None) -> int:
    """The exit code: 0 direct, 20 through a relay or the server, 21 the same where no UDP gets out here."""
    from crowline.cli.run import run

    return run(examine_pair(output, code, server=server, timeout=timeout))


async def examine_pair(
    output: Output, code: str | None = None, *, server: str | None = None, timeout: float | None = None
) -> int:
    """The same in a loop that runs already."""
    from crowline.api.doctor.pair_examination import pair_room
    from crowline.api.options import default_server
    from crowline.api.room import check_code

    server = server or default_server()
    if code is not None:
        code = check_code(code)
        # Before the meeting: what is measured beside it would count each other's ports.
        own = await _own(server, output)
    async with pair_room(code, server, timeout=timeout) as room:
        room.on_warning(output.warn)
        room.on_path(lambda now, before: _show_path(output, now, before))
        if code is None:
            output.emit("code", code=room.code)
            output.insist(f"On the other computer:   crowline doctor {room.code}")
            looking = asyncio.create_task(_own(server, output))
            try:
                peer = await room.peer()
                own = await looking
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
        else:
            peer = await room.peer()
        output.emit("peer", words=list(peer.words))
        output.say(f"Connected. Both screens show: {' '.join(peer.words)}")
        output.say("Trying every pair …")
        report = await room.examine(own)
    output.emit("doctor-pair", **report.to_fields())
    _show(report, output)
    return report.exit_code


async def _own(server: str, output: Output) -> SideFacts:
    """This side alone, first."""
    from crowline.api.doctor.examination import examine
    from crowline.api.doctor.pair_examination import side_of

    output.say("Looking at this side …")
    examination = await examine(server)
    return side_of(examination.facts, examination.diagnosis)


def _show_path(output: Output, now: Path | None, before: Path | None) -> None:
    output.path(now, before)
    if now is not None:
        output.say(f"Path: {describe_path(now)}  ({now.reason})")


def _show(report: PairReport, output: Output) -> None:
    if output.as_json:
        return
    output.insist(f"Verdict   {report.sentence}")
    output.insist(f"You       {_side(report.own)}")
    output.insist(f"Peer      {_side(report.peer)}")
    tried = report.result
    took = "" if report.direct_ms is None else f"; the first direct one after {report.direct_ms:.0f} ms"
    output.insist(f"Tried     {count(tried.tried, 'pair')}, {tried.worked} of them work{took}")
    working = [trial for trial in report.trials if trial.works]
    others = [trial for trial in report.trials if not trial.works]
    shown = [*working[:_PAIRS_SHOWN], *others[:_PAIRS_SHOWN]]
    for trial in shown:
        output.say(f"          {_trial(trial)}")
    if more := len(report.trials) - len(shown):
        output.say(f"          and {count(more, 'more pair')}; --json has them all")
    if report.best is not None:
        output.insist(f"Best      {_measure(report.best)}")
        output.insist(f"Why       {report.best.reason}")
    if report.relay is not None:
        output.insist(f"Relay     {_measure(report.relay)}")


def _side(side: SideFacts) -> str:
    parts = [side.nat or "not measured"]
    parts.append("IPv6" if side.has_ipv6 else "no IPv6")
    if side.is_double:
        parts.append("two NATs in a row")
    if side.routers:
        parts.append(f"the router opens ports ({', '.join(side.routers)})")
    if side.firewall:
        parts.append(side.firewall)
    return " · ".join(parts)


def _trial(trial: PairTrial) -> str:
    mark = "✓" if trial.works else "✗" if trial.was_tried else "·"
    rtt = "" if trial.rtt is None else f" {trial.rtt * 1000:.0f} ms"
    return f"{mark} {trial.name}  {trial.local} ⇄ {trial.remote}{rtt}  {trial.result.value}: {trial.reason}"


def _measure(measure: Measure) -> str:
    way = f"{measure.kind}, {measure.transport}"
    parts = [way] if measure.kind == "hub" else [f"{way}, {measure.local} ⇄ {measure.remote}"]
    if measure.rtt is not None:
        parts.append(f"{measure.rtt * 1000:.0f} ms")
    if measure.up is not None:
        parts.append(f"{_rate(measure.up)} up")
    if measure.down is not None:
        parts.append(f"{_rate(measure.down)} down")
    if measure.loss is not None:
        parts.append(f"loss {measure.loss:.0%}")
    return ", ".join(parts)


def _rate(rate: float) -> str:
    """Bytes a second, as lines are sold."""
    bits, unit = rate * 8, "bit/s"
    for larger in ("kbit/s", "Mbit/s", "Gbit/s"):
        if bits >= 1000:
            bits, unit = bits / 1000, larger
    return f"{bits:.0f} {unit}" if bits >= 10 else f"{bits:.1f} {unit}"

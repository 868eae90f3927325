"""`crowline forward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from crowline.base.errors import CrowlineError, LocalProblem, UsageError
from crowline.cli.meet import carriage, meet
from crowline.cli.options import MeetingFlags, meeting_options
from crowline.cli.output import Output, printable, size
from crowline.cli.place import PlaceFlags, check, place_options

if TYPE_CHECKING:
    from crowline.api.forwarding.events import ForwardEvent
    from crowline.api.forwarding.forwarder import Bound, Permit, Request, Rule
    from crowline.api.forwarding.gate import Consent
    from crowline.api.peer import Peer

# Seconds before the other side is looked for again: at first, and where that fails time after time.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the command line asks for and allows."""

    local: tuple[str, ...]
    remote: tuple[str, ...]
    dynamic: tuple[str, ...]
    allow: tuple[str, ...]
    allow_listen: tuple[str, ...]
    yes: bool

    def rules(self) -> list[Rule]:
        """Raises `UsageError` for what is none."""
        from crowline.api.forwarding.forwarder import parse_dynamic, parse_local, parse_remote

        return [
            *(parse_local(text) for text in self.local),
            *(parse_remote(text) for text in self.remote),
            *(parse_dynamic(text) for text in self.dynamic),
        ]

    def permits(self) -> tuple[list[Permit], list[Permit]]:
        """What may be reached from here, and where may be listened here. Raises `UsageError`."""
        from crowline.api.forwarding.forwarder import Permit, parse_listen_permit

        listens = [parse_listen_permit(text) for text in self.allow_listen]
        return [Permit.parse(text) for text in self.allow], listens


@click.command()
@click.argument("code", required=False)
@click.option(
    "-L",
    "local",
    multiple=True,
    metavar="[BIND:]PORT:HOST:PORT[/udp]",
    help="Listen here, connect from the other side to HOST:PORT. A lone PORT is the same one over there.",
)
@click.option(
    "-R",
    "remote",
    multiple=True,
    metavar="[BIND:]PORT:HOST:PORT[/udp]",
    help="Listen on the other side, connect from here to HOST:PORT.",
)
@click.option(
    "-D",
    "dynamic",
    multiple=True,
    metavar="[BIND:]PORT",
    help="A SOCKS5 server here, whose connections and datagrams leave from the other side.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST:PORT",
    help="Let the other side reach that from here; * in either, a network, a range of ports. *:443 is the "
    "internet, not this computer or its network.",
)
@click.option("--allow-listen", multiple=True, metavar="[BIND:]PORT", help="Let it listen here at that port.")
@click.option("-y", "--yes", is_flag=True, help="Agree to what the other side asks for, without questions.")
@click.option("--stay", is_flag=True, help="With --peer: when the other side leaves, wait for it again.")
@place_options("--to", "--from")
@meeting_options
def forward(
    code: str | None,
    local: tuple[str, ...],
    remote: tuple[str, ...],
    dynamic: tuple[str, ...],
    allow: tuple[str, ...],
    allow_listen: tuple[str, ...],
    yes: bool,
    stay: bool,
    place: PlaceFlags,
    flags: MeetingFlags,
    output: Output,
) -> None:
    """Forward TCP and UDP ports between two computers, several at once, in both directions.

    Without CODE this side shows one for the other, where `crowline forward CODE` is run. Either side may
    ask with -L, -R and -D; the side whose network is used is asked whether it agrees, or has said so with
    --allow. It goes on until Ctrl-C or until the other side leaves; with --stay, in spite of that.
    """
    from crowline.cli.run import run

    check(flags, place)
    if stay and place.peer is None:
        raise UsageError("Only somebody who is known can be met again: --stay goes with --peer.")
    wishes = _Wishes(local, remote, dynamic, allow, allow_listen, yes)
    run(_forward(output, code, flags, place, wishes, stays=stay))


async def _forward(
    output: Output,
    code: str | None,
    flags: MeetingFlags,
    place: PlaceFlags,
    wishes: _Wishes,
    *,
    stays: bool,
) -> None:
    from asyncio import sleep

    from crowline.api.forwarding.forwarder import binding

    rules = wishes.rules()
    wishes.permits()
    _require_purpose(wishes, rules)
    # Now: a port that is taken should be known before anybody types a code.
    with binding(rules) as bound:
        pause = _PAUSE
        while True:
            try:
                async with meet(output, flags, place, code, verb="forward") as peer:
                    pause = _PAUSE
                    await _forward_with(peer, bound, output, wishes)
            except CrowlineError as error:
                if not stays or isinstance(error, UsageError | LocalProblem):
                    raise
                output.warn(error.message)
            if not stays:
                return
            await sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


async def _forward_with(peer: Peer, bound: Sequence[Bound], output: Output, wishes: _Wishes) -> None:
    """With one process of the other side, until it leaves."""
    from crowline.api.forwarding.forwarder import Forwarder
    from crowline.api.forwarding.gate import Gate

    gate = Gate(*wishes.permits(), _consent(output, wishes))
    await Forwarder(peer, bound, gate, _teller(output)).run()
    output.emit("done", **carriage(peer))
    output.say("The other side has left.")


def _require_purpose(wishes: _Wishes, rules: Sequence[Rule]) -> None:
    from crowline.cli.ask import can_ask

    if not (rules or wishes.allow or wishes.allow_listen or wishes.yes or can_ask()):
        hint = "Use --allow for what the other side may reach, or -y; or ask for something with -L, -R or -D."
        raise UsageError("Nobody can be asked here.", hint=hint)


def _consent(output: Output, wishes: _Wishes) -> Consent:
    from crowline.api.forwarding.forwarder import describe
    from crowline.cli.ask import agree, can_ask

    async def consent(request: Request) -> bool:
        what = printable(describe(request))
        if wishes.yes:
            return True
        if not can_ask():
            output.warn(f"Refused: {what}. --allow or -y would agree.")
            return False
        return await agree(f"The other side asks {what}. Agree?")

    return consent


def _teller(output: Output) -> Callable[[ForwardEvent], None]:
    from crowline.api.forwarding import events

    def tell(event: ForwardEvent) -> None:
        if isinstance(event, events.RuleReady):
            where = event.where if isinstance(event.where, int) else str(event.where)
            output.emit("rule", state="ready", rule=event.rule, where=where)
            output.insist(f"Ready: {event.rule}")
        elif isinstance(event, events.RuleDenied):
            output.emit("rule", state="denied", rule=event.rule, reason=event.reason.value)
            output.insist(f"Denied: {event.rule}: {event.reason.sentence}")
        elif isinstance(event, events.Shared):
            output.emit("shared", what=event.what)
            output.say(f"The other side may have: {event.what}")
        elif isinstance(event, events.ConnectionOpened):
            output.emit("connection", state="opened", number=event.number, what=event.what)
            output.say(f"[{event.number}] {event.what}")
        else:
            counts = {"sent": event.sent, "received": event.received}
            output.emit("connection", state="closed", number=event.number, **counts, reason=event.reason)
            why = f": {event.reason}" if event.reason else ""
            output.say(f"[{event.number}] over, {size(event.sent)} out, {size(event.received)} in{why}")

    return tell

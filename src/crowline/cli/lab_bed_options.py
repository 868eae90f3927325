"""Flags of the commands that build a test bed in the kernel, and the test bed that they ask for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from crowline.lab.bed import Bed

F = TypeVar("F", bound=Callable[..., Any])

_BYTES_PER_MBIT = 125_000
_OPTIONS = (
    click.option("--a", default="home", show_default=True, metavar="PLACE", help="Where host a lives."),
    click.option("--b", default="home", show_default=True, metavar="PLACE", help="Where host b lives."),
    click.option(
        "--rtt",
        type=click.FloatRange(0, 4000),
        default=40.0,
        show_default=True,
        metavar="MS",
        help="Round trip between the two hosts; half of it to the server.",
    ),
    click.option(
        "--jitter", type=click.FloatRange(0, 4000), default=0.0, metavar="MS", help="Up to so much more."
    ),
    click.option(
        "--loss",
        type=click.FloatRange(0, 100),
        default=0.0,
        metavar="PERCENT",
        help="Of the packets on each host's line, each way.",
    ),
    click.option(
        "--burst",
        type=click.FloatRange(1, 1000),
        metavar="N",
        help="Lose so many packets in a row on average.",
    ),
    click.option(
        "--rate", type=click.FloatRange(0.001, 100_000), metavar="MBIT", help="Of each host's line, each way."
    ),
    click.option("--mtu", type=click.IntRange(68, 65535), metavar="BYTES", help="Larger packets vanish."),
    click.option(
        "--places",
        type=click.Path(dir_okay=False, exists=True, path_type=Path),
        metavar="FILE",
        help="Places of your own beside the presets.",
    ),
    click.option("--no-serve", is_flag=True, help="Do not run `crowline serve` on the server."),
)


def bed_options(command: F) -> F:
    """Add the flags to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def bed_of(
    *,
    a: str,
    b: str,
    rtt: float,
    jitter: float,
    loss: float,
    burst: float | None,
    rate: float | None,
    mtu: int | None,
    places: Path | None,
) -> AbstractContextManager[Bed]:
    """The test bed that the flags describe. Raises `UsageError` and `LocalProblem`."""
    from crowline.base.errors import UsageError
    from crowline.lab.bed import build_bed
    from crowline.lab.impairment import GilbertElliott, Impairment
    from crowline.lab.places_file import load_places
    from crowline.lab.presets import PRESETS
    from crowline.lab.worlds import require_kernel

    known = PRESETS | (load_places(places) if places else {})
    for name in (a, b):
        if name not in known:
            raise UsageError(f"{name} is no place.", hint=f"There are: {', '.join(known)}.")
    line = Impairment(
        jitter=jitter / 1e3,
        loss=GilbertElliott.of_bursts(loss / 100, burst) if burst else loss / 100,
        rate=rate * _BYTES_PER_MBIT if rate else None,
        mtu=mtu,
    )
    require_kernel()
    return build_bed(known[a], known[b], rtt=rtt / 1e3, line=line)

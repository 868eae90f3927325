"""`crowline demo`: a whole internet on this machine, and files through its NATs."""

from __future__ import annotations

import signal
from types import FrameType

import click

_LABEL_WIDTH = 14  # columns, of the longest label and a gap


@click.command("demo")
@click.option("--rate", is_flag=True, help="Send 1 GiB over the direct path and print the rate.")
@click.option(
    "--delay",
    type=click.FloatRange(0.0, 1000.0),
    default=10.0,
    show_default=True,
    metavar="MS",
    help="One way between a host and the server; two hosts are twice that apart.",
)
@click.option(
    "--nat",
    type=click.Choice(["auto", "kernel", "user"]),
    default="auto",
    help="Who translates: nftables (kernel) or a user-space NAT; auto takes nftables where it works.",
)
@click.option("--loopback", is_flag=True, help="Only processes on loopback, as without root.")
def demo(rate: bool, delay: float, nat: str, loopback: bool) -> None:
    """Show it at work: a server, two machines behind NATs, real transfers.

    As root on Linux this builds network namespaces and removes them again; elsewhere it runs the same
    programs on loopback. Exits with 0 only if everything arrived whole and by the path that it should.
    """
    # The laboratory is large, and `crowline --help` imports this file.
    from crowline.lab.demo import Wishes, run_demo

    def terminated(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminated)
    wishes = Wishes(rate=rate, delay=delay / 1e3, translator=nat, loopback=loopback)  # type: ignore[arg-type]
    try:
        problems = run_demo(wishes, _Terminal())
    except KeyboardInterrupt:
        click.echo("\nInterrupted; everything that was built is removed.", err=True)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    click.echo()
    if problems:
        click.echo(f"{len(problems)} thing(s) went wrong:")
        for problem in problems:
            click.echo(f"  - {problem}")
        raise SystemExit(1)
    click.echo("All is right.")


class _Terminal:
    def heading(self, text: str) -> None:
        click.echo(f"\n{text}")

    def line(self, label: str, text: str) -> None:
        click.echo(f"  {label:<{_LABEL_WIDTH}}{text}")

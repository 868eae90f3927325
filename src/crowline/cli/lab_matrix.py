"""`crowline lab matrix`: every kind of NAT with every other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crowline.base.errors import LocalProblem, UsageError
from crowline.cli.lab_options import jobs_option, names, places_option
from crowline.cli.lab_progress import progress, stoppable
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.lab.journal import Journal
    from crowline.lab.matrix import Matrix, Plan
    from crowline.lab.outcome import Outcome
    from crowline.lab.profile import Profile
    from crowline.lab.trial import Trial
    from crowline.lab.worlds import World

_FILE = click.Path(dir_okay=False, path_type=Path)
_INTERRUPTED = 130


@click.command("matrix")
@click.option(
    "--world",
    type=click.Choice(["virtual", "kernel"]),
    default="virtual",
    show_default=True,
    help="Virtual time, or real programs in network namespaces (root).",
)
@click.option("--presets", metavar="NAME,…", default="", help="Only these; all where none is given.")
@click.option("--against", metavar="NAME,…", default="", help="The columns, where they are not the rows.")
@places_option
@click.option("--both-ways", is_flag=True, help="Try each pair with either side as the host.")
@click.option("--runs", type=click.IntRange(1, 1000), help="Attempts of each pair.  [default: 5, kernel 1]")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same virtual world.")
@click.option(
    "--rtt",
    type=click.FloatRange(0, 2000),
    default=40.0,
    show_default=True,
    metavar="MS",
    help="Round trip between the two hosts.",
)
@jobs_option
@click.option("--peer", type=_FILE, metavar="SCRIPT", help="Test another program; docs/lab.md says how.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1, max=600),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds for an attempt in the kernel.",
)
@click.option("--name", help="What to call that program.  [default: the script's name]")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page with the heat map.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="Write the table in Markdown.")
@click.option("--state", type=_FILE, metavar="FILE", help="Keep what is done in this file.")
@click.option("--fresh", is_flag=True, help="Forget what a stopped run had done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Show the table alone.")
def matrix(as_json: bool, quiet: bool, **wishes: Any) -> int:
    """Connect every kind of NAT with every other: direct, by a relay, or not at all, how soon and why.

    A run that is stopped goes on where it was when the same command is given again.
    """
    # The laboratory is large, and help must be quick.
    from crowline.lab.journal import Journal
    from crowline.lab.places_file import known_places

    output = Output(as_json=as_json, quiet=quiet)
    places = known_places(wishes["places"])
    plan, world = _plan(places, **wishes)
    files = [wishes["html"], wishes["markdown"]]
    _check_folders(files)
    state = wishes["state"] or _state_file(plan)
    with Journal(state, plan.about(), fresh=wishes["fresh"]) as journal, stoppable():
        try:
            result = _run(plan, world, wishes["jobs"] or os.cpu_count() or 1, journal, output)
        except KeyboardInterrupt:
            output.insist(
                f"Stopped after {len(journal.outcomes)} attempts; the same command goes on from there."
            )
            return _INTERRUPTED
        _show(result, output)
        _write(result, places, *files)
        if wishes["state"] is None:
            journal.discard()
    return 0


def _plan(
    known: Mapping[str, Profile],
    *,
    world: str,
    presets: str,
    against: str,
    both_ways: bool,
    runs: int | None,
    peer: Path | None,
    name: str | None,
    places: Path | None,
    **wishes: Any,
) -> tuple[Plan, World]:
    """What is to be tried, and the world to try it in."""
    from crowline.lab.matrix import Plan, choose

    rows = choose(names(presets), known)
    columns = choose(names(against), known) if against else rows
    built = _world(world, known, peer, **wishes)
    parameters = built.parameters()
    if places is not None:
        parameters["places"] = hashlib.sha256(places.read_bytes()).hexdigest()[:12]
    program = name or (peer.stem if peer else "crowline")
    plan = Plan(program, world, rows, columns, runs or built.default_runs, both_ways, parameters)
    return plan, built


def _world(
    world: str,
    places: Mapping[str, Profile],
    peer: Path | None,
    *,
    seed: int,
    rtt: float,
    timeout: float,
    **_: Any,
) -> World:
    """Raises `UsageError` and `LocalProblem` where it cannot be had."""
    from crowline.lab.worlds import KernelWorld, VirtualWorld

    if world == "virtual":
        if peer is not None:
            raise UsageError("Another program cannot run in virtual time.", hint="Add --world kernel.")
        return VirtualWorld(seed, rtt / 1e3, places)
    built = KernelWorld(rtt / 1e3, places, peer, timeout)
    built.check()
    return built


def _run(plan: Plan, world: World, jobs: int, journal: Journal, output: Output) -> Matrix:
    from crowline.lab.matrix import run_matrix

    trials = plan.trials()
    known = sum(trial in journal.outcomes for trial in trials)
    if known:
        output.say(f"{known} of {len(trials)} attempts are done already; --fresh would start anew.")

    with progress(output, f"{plan.program}, {plan.world}", max(1, len(trials) - known)) as step:

        def watch(trial: Trial, outcome: Outcome) -> None:
            step()
            output.emit("attempt", a=trial.a, b=trial.b, number=trial.number, **outcome.to_fields())

        return run_matrix(plan, world.attempt, jobs=jobs, journal=journal, watch=watch)


def _show(result: Matrix, output: Output) -> None:
    from crowline.lab.table import summary, terminal_table

    if output.as_json:
        output.emit("matrix", **result.to_fields())
        return
    click.echo(terminal_table(result, shutil.get_terminal_size().columns))
    click.echo(summary(result))


def _write(result: Matrix, places: Mapping[str, Profile], page: Path | None, markdown: Path | None) -> None:
    from crowline.lab.report import About, render
    from crowline.lab.table import markdown_table, parameters_in_words, summary

    plan = result.plan
    title = f"{plan.program} through every kind of NAT"
    facts = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "crowline": version("crowline")}
    try:
        if page is not None:
            summaries = {name: place.summary for name, place in places.items()}
            page.write_text(render(result, About(title, facts, summaries)), encoding="utf-8")
        if markdown is not None:
            words = {
                "world": plan.world,
                **parameters_in_words(plan),
                "runs of each pair": plan.runs,
                **facts,
            }
            about = ", ".join(f"{name} {value}" for name, value in words.items())
            parts = [f"# {title}", about, summary(result), markdown_table(result)]
            markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise LocalProblem(f"{error.filename} cannot be written: {error.strerror}.") from error


def _check_folders(files: list[Path | None]) -> None:
    """Before an hour of work, not after it."""
    for file in files:
        if file is not None and not os.access(file.absolute().parent, os.W_OK):
            raise LocalProblem(f"{file} cannot be written: its folder is not there or not yours.")


def _state_file(plan: Plan) -> Path:
    """Where a run with these parameters remembers what it has done, where nobody named a file."""
    from platformdirs import user_state_path

    text = json.dumps([plan.about(), plan.rows, plan.columns, version("crowline")], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    return user_state_path("crowline", appauthor=False) / "lab" / f"matrix-{name}.jsonl"

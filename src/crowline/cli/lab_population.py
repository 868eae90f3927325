"""`crowline lab population`: the share of pairs that connect directly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crowline.cli.lab_options import jobs_option, places_option
from crowline.cli.lab_progress import progress, stoppable
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.lab.population_run import PairOutcome, PopulationResult

_LABEL_WIDTH = 30  # columns of names of techniques and classes


@click.command("population")
@click.option(
    "--pairs",
    type=click.IntRange(1, 10_000_000),
    default=2000,
    show_default=True,
    help="How many pairs to draw and connect.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same pairs, same outcomes.")
@click.option(
    "--weights",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Another population, in the form of ours.",
)
@places_option
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Show the result alone.")
def population(
    pairs: int,
    seed: int,
    weights: Path | None,
    places: Path | None,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Connect pairs that are drawn as common as they are out there: how many get a direct path, and how.

    Every pair is a complete attempt in virtual time. The weights are estimates, with their sources in the
    file; `docs/lab.md` says what the share does not tell.
    """
    # The laboratory is large, and help must be quick.
    from crowline.lab.places_file import known_places
    from crowline.lab.population import load_population
    from crowline.lab.population_run import run_population

    output = Output(as_json=as_json, quiet=quiet)
    drawn_from = load_population(weights, known_places(places))
    with stoppable(), progress(output, "pairs", pairs) as step:

        def watch(number: int, outcome: PairOutcome) -> None:
            step()

        result = run_population(drawn_from, pairs, seed, jobs=jobs or os.cpu_count() or 1, watch=watch)
    output.emit("population", title=drawn_from.title, seed=seed, **result.to_fields())
    if not as_json:
        click.echo(f"{drawn_from.title}: {pairs} pairs, seed {seed}; 95 % confidence in brackets")
        click.echo(_in_words(result))


def _in_words(result: PopulationResult) -> str:
    from crowline.lab.table import percent

    lines = []
    for kind, words in (
        ("direct", "direct"),
        ("relay", "through a server"),
        ("hub", "  meeting point only"),
        ("failed", "failed"),
    ):
        low, high = result.interval(kind)
        lines.append(_line(words, f"{percent(result.share(kind)):>7}  [{percent(low)} … {percent(high)}]"))
    fields = result.to_fields()
    lines += ["", "What made the path, of all pairs"]
    lines += [_line(name, f"{percent(share):>7}") for name, share in fields["techniques"].items()]
    lines += ["", "Direct, of the pairs with one side in"]
    lines += [_line(name, f"{percent(share):>7}") for name, share in fields["direct_by_class"].items()]
    return "\n".join(lines)


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_WIDTH}}  {text}"

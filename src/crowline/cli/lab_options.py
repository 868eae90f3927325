"""Flags that several commands of the laboratory have."""

from __future__ import annotations

from pathlib import Path

import click

jobs_option = click.option(
    "--jobs", type=click.IntRange(1, 64), help="Processes at work.  [default: one for each core]"
)
places_option = click.option(
    "--places",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Places of your own; docs/lab.md says how.",
)


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]

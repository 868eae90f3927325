"""Flags that several commands of the laboratory have."""

from __future__ import annotations

import click

jobs_option = click.option(
    "--jobs", type=click.IntRange(1, 64), help="Processes at work.  [default: one for each core]"
)


def names(text: str) -> list[str]:
    """What stands between the commas."""
    return [name.strip() for name in text.split(",") if name.strip()]

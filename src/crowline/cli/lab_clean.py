"""`crowline lab clean`: remove what killed laboratories left behind."""

from __future__ import annotations

import os

import click

from crowline.base.errors import LocalProblem
from crowline.cli.output import Output, count


@click.command("clean")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
def clean(as_json: bool, quiet: bool) -> int:
    """Remove the namespaces, programs and files of laboratories that were killed; needs root.

    Laboratories that are at work are left alone, and so is everything that is not one.
    """
    from crowline.lab.leftovers import sweep

    if os.geteuid() != 0:
        raise LocalProblem(
            "Only root can remove namespaces.", hint="Without root no laboratory leaves anything behind."
        )
    output = Output(as_json=as_json, quiet=quiet)
    removed = sweep()
    for each in removed:
        output.emit(
            "removed",
            laboratory=each.prefix,
            namespaces=each.namespaces,
            processes=each.processes,
            folders=each.folders,
        )
        what = (
            count(each.namespaces, "namespace"),
            count(each.processes, "program"),
            count(each.folders, "folder"),
        )
        output.say(f"{each.prefix.rstrip('-')}: {', '.join(what)} removed")
    if not removed:
        output.say("Nothing was left behind.")
    return 0

"""`crowline lab`: the NAT laboratory; one file for each of its commands, imported when it is called."""

from __future__ import annotations

import click

from crowline.cli.verbs import Verbs

# verb: module, one line of help
LAB_VERBS = {
    "run": ("crowline.cli.lab_run", "Run commands on two hosts behind NATs of your choice."),
    "shell": ("crowline.cli.lab_shell", "Open a shell on a host of the laboratory."),
    "matrix": (
        "crowline.cli.lab_matrix",
        "Connect every kind of NAT with every other: a table, JSON, a page.",
    ),
    "population": (
        "crowline.cli.lab_population",
        "Connect pairs as common as the real ones; the share direct.",
    ),
    "selftest": ("crowline.cli.lab_selftest", "Prove with packets that each NAT behaves as described."),
    "clean": ("crowline.cli.lab_clean", "Remove what killed laboratories left behind."),
}


@click.command("lab", cls=Verbs, verbs=LAB_VERBS)
def lab() -> None:
    """Try any program behind every kind of NAT, on this machine.

    The virtual world needs nothing; the kernel world needs root on Linux. `docs/lab.md` says how a NAT is
    described, how to test a program of your own, and what the laboratory cannot tell.
    """

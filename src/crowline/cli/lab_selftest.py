"""`crowline lab selftest`: whether the laboratory's NATs are what they are called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from crowline.cli.lab_options import jobs_option, names
from crowline.cli.lab_progress import progress, stoppable
from crowline.cli.output import Output

if TYPE_CHECKING:
    from crowline.lab.proof import Question
    from crowline.lab.selftest import Report

_WORLDS = {"virtual": ("virtual",), "kernel": ("kernel",), "both": ("virtual", "kernel")}

# The initials of RFC 4787 and RFC 5780.
_INITIALS = {
    "endpoint-independent": "EI",
    "address-dependent": "AD",
    "address-and-port-dependent": "APD",
}


@click.command("selftest")
@click.option(
    "--world",
    type=click.Choice(list(_WORLDS)),
    default="virtual",
    show_default=True,
    help="In virtual time, in the kernel (root), or in both, which then must agree.",
)
@click.option("--presets", metavar="NAME,…", default="", help="Only these; all where none is given.")
@jobs_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Show only what is wrong.")
def selftest(world: str, presets: str, jobs: int | None, as_json: bool, quiet: bool) -> int:
    """Prove from outside, with packets, that each kind of NAT behaves as it is described.

    Exits with 0 only if all of them do.
    """
    # The laboratory is large, and help must be quick.
    from crowline.lab.matrix import choose
    from crowline.lab.presets import PRESETS
    from crowline.lab.proof import Question, check

    output = Output(as_json=as_json, quiet=quiet)
    worlds: Any = _WORLDS[world]
    check(worlds)
    questions = [Question(name, each) for name in choose(names(presets), PRESETS) for each in worlds]
    with stoppable():
        reports = _measure(questions, jobs or os.cpu_count() or 1, output)
    problems = [problem for question in questions for problem in _show(question, reports, output)]
    output.emit("selftest", places=len(questions), problems=problems)
    for problem in problems:
        output.insist(problem)
    output.say(f"{len(questions)} places measured, {len(problems)} of their properties are not as described.")
    return 1 if problems else 0


def _measure(questions: list[Question], jobs: int, output: Output) -> dict[Question, Report]:
    from crowline.lab.proof import prove
    from crowline.lab.workers import run_all

    reports = {}
    with progress(output, "self-test", len(questions)) as step:
        for question, report in run_all(prove, questions, jobs=jobs):
            reports[question] = report
            step()
    return reports


def _show(question: Question, reports: dict[Question, Report], output: Output) -> list[str]:
    """Say what was measured; give back what is wrong with it."""
    from crowline.lab.proof import disagreements

    report = reports[question]
    output.emit(
        "place",
        preset=question.preset,
        world=question.world,
        passed=report.passed,
        measured=report.measured.to_fields(),
    )
    output.say(_line(question, report))
    problems = list(report.differences)
    twin = next((each for each in reports if each.preset == question.preset and each != question), None)
    if twin is not None and question.world == "kernel":
        problems += disagreements(reports[twin], report)
    return [f"{question.preset} ({question.world}): {problem}" for problem in problems]


def _line(question: Question, report: Report) -> str:
    fields = report.measured.to_fields()
    facts = [
        f"{label} {_INITIALS.get(str(fields[name]), fields[name])}"
        for name, label in (
            ("mapping", "mapping"),
            ("filtering", "filtering"),
            ("allocation", "ports"),
            ("hairpin", "hairpin"),
            ("udp_idle", "idle"),
            ("absolute", "absolute"),
            ("unsolicited_syn", "SYN"),
        )
        if fields[name] is not None
    ]
    if not fields["udp"]:
        facts.insert(0, f"no UDP, TCP {fields['tcp']}")
    mark = "✓" if report.passed else "✗"
    return f"{mark} {question.preset:<21} {question.world:<8} {', '.join(facts)}"

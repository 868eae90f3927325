"""The self-test of presets in either world, and whether the worlds agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from crowline.lab import selftest
from crowline.lab.kernel_bench import KernelBench
from crowline.lab.namespaces import Internet
from crowline.lab.presets import preset
from crowline.lab.selftest import Report
from crowline.lab.virtual_bench import VirtualBench
from crowline.lab.worlds import require_kernel

WorldName: TypeAlias = Literal["virtual", "kernel"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which preset is to be measured, and where."""

    preset: str
    world: WorldName


def prove(question: Question) -> Report:
    """Build the place and measure it. Raises `CrowlineError` where the world cannot be had."""
    profile = preset(question.preset)
    if question.world == "virtual":
        return selftest.run(profile, VirtualBench(profile))
    with Internet() as internet, KernelBench(profile, internet) as bench:
        return selftest.run(profile, bench)


def check(worlds: Sequence[WorldName]) -> None:
    """Raise `LocalProblem` where this machine lacks one of the worlds."""
    if "kernel" in worlds:
        require_kernel()


def disagreements(virtual: Report, kernel: Report) -> list[str]:
    """One phrase for each thing that the two worlds measured differently."""
    return [f"{phrase} (kernel, virtual)" for phrase in kernel.measured.differences(virtual.measured)]

"""What a harness is, and what is asked of every one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import process_time

MAX_INPUT = 64 * 1024
"""Bytes of one input: the largest message that any of the codecs takes whole."""

TIME_LIMIT = 2.0
"""Seconds of the processor for one input: good code needs milliseconds, a square of 64 KiB takes minutes."""


@dataclass(frozen=True, slots=True)
class Harness:
    """One codec. `run` takes any bytes, and raises nothing but what `allowed` names, one reason for each.

    `module` is the part of the source whose lines guide the search. `tokens` are pieces of the format, which
    chance would take too long to find.
    """

    name: str
    run: Callable[[bytes], None]
    module: str
    seeds: tuple[bytes, ...]
    allowed: tuple[type[Exception], ...] = ()
    tokens: tuple[bytes, ...] = ()


class TooSlow(AssertionError):
    """One input took longer than any input may."""


def check(harness: Harness, data: bytes) -> None:
    """Run one input. Whatever leaves this function is a finding."""
    began = process_time()
    with suppress(*harness.allowed):
        harness.run(data)
    if process_time() - began > TIME_LIMIT:
        raise TooSlow(f"{len(data)} bytes took {process_time() - began:.1f} s")

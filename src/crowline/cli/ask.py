"""Questions to a person, without stopping the event loop."""

from __future__ import annotations

import asyncio
import sys


def can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask(question: str) -> str | None:
    """One line typed by the person, without its newline; None at the end of input."""
    sys.stderr.write(f"  {question} ")
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(sys.stdin, ready.set)
    except (NotImplementedError, OSError):
        return _typed(await asyncio.to_thread(sys.stdin.readline))
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return _typed(sys.stdin.readline())


async def agree(question: str) -> bool:
    """Whether the person agrees; Enter alone does, the end of input does not."""
    answer = await ask(f"{question} [Y/n]")
    return answer is not None and answer.lower() in ("", "y", "yes")


def _typed(line: str) -> str | None:
    return line.strip() if line else None

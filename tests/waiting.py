"""Waiting for what nobody tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 60.0, pause: float = 0.005) -> None:
    """Wait until `condition()` holds, which is looked at every `pause` seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "that did not happen in time"
        await asyncio.sleep(pause)

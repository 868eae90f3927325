"""What holds for every test: no deadlines of Hypothesis on a busy machine, and no task left behind."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import hypothesis
import pytest

hypothesis.settings.register_profile("crowline", deadline=None)
hypothesis.settings.load_profile("crowline")


@pytest.fixture
async def _no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    # What was cancelled ends with the next turns of the loop.
    for _ in range(3):
        await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if not task.done()} - {asyncio.current_task()}
    assert not left, f"tasks were left behind: {left}"


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> None:
    """Every asynchronous test ends its tasks."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_is_left")

"""What holds for every test: no deadlines of Hypothesis on a busy machine, and no task left behind."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

import no_real_router
from crowline.net import router

# Nothing that tests do may leave this machine.
no_real_router.guard_programs()
no_real_router.set_up(router)

# Hundreds of programs are started: each would compile what they share, where nothing compiled is kept.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

PATIENCE = 30.0  # seconds for tasks that are ending

# A test gives the same answer each time; new examples are what `fuzz` looks for.
hypothesis.settings.register_profile(
    "crowline",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("crowline")


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What programs remember of transfers and routers is not the user's who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
async def _no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    if left:
        # What was cancelled ends with the next turns of the loop, what a thread works on when that is done.
        _, left = await asyncio.wait(left, timeout=PATIENCE)
    assert not left, f"tasks were left behind: {left}"


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> None:
    """Every asynchronous test ends its tasks."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_is_left")

"""Internets of network namespaces for the tests in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from crowline.lab.demo_stage import missing_for_namespaces
from crowline.lab.namespaces import Internet, TranslatorChoice
from needs import missing, needs_program, needs_root

Factory = Callable[..., Internet]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the kernel."""
    for item in items:
        if "tests/kernel" in item.path.as_posix():
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session", autouse=True)
def namespaces() -> None:
    """Root alone does not mean that namespaces can be made: try once."""
    needs_root()
    if reason := missing_for_namespaces():
        missing(reason)


@pytest.fixture
def internet() -> Iterator[Factory]:
    """Build an internet: `internet(translator="auto" | "kernel" | "user")`; it is removed after the test."""
    with ExitStack() as stack:

        def build(translator: TranslatorChoice = "auto") -> Internet:
            if translator == "kernel":
                needs_program("nft")
            return stack.enter_context(Internet(translator=translator))

        yield build

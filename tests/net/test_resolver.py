"""Names that servers are said to have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.net import resolver
from crowline.net.resolver import resolve


@pytest.mark.parametrize("name", ["a..b", "x" * 70 + ".example", "\x00", "\udcff", ".", "%"])
async def test_a_name_that_cannot_be_looked_up_is_left_out(name: str) -> None:
    """A hub may say anything; the other servers still count."""
    found = await resolve([(name, 3478), ("192.0.2.7", 3478), ("", 3479)], "192.0.2.8")
    assert found == [Address("192.0.2.7", 3478), Address("192.0.2.8", 3479)]


async def test_a_name_service_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy there may be none, and streams through the proxy wait for these addresses."""

    async def hang(*arguments: Any, **options: Any) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(resolver, "LOOKUP_LIMIT", 0.01)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    found = await resolve([("turn.example", 3478), ("", 3479)], "192.0.2.8")
    assert found == [Address("192.0.2.8", 3479)]

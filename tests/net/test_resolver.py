"""Names that servers are said to have."""

from __future__ import annotations

import asyncio
import socket
import threading

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

    async def hang(name: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(resolver, "LOOKUP_LIMIT", 0.01)
    monkeypatch.setattr(resolver, "look_up", hang)
    found = await resolve([("turn.example", 3478), ("", 3479)], "192.0.2.8")
    assert found == [Address("192.0.2.8", 3479)]


def test_the_end_of_the_program_waits_for_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is silent holds the system's call up, which cannot be broken off."""
    may_answer = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        may_answer.wait()
        return []

    monkeypatch.setattr(resolver, "LOOKUP_LIMIT", 0.01)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    rescue = threading.Timer(20.0, may_answer.set)
    rescue.start()
    assert asyncio.run(resolve([("turn.example", 3478)], "192.0.2.8")) == []
    assert not may_answer.is_set()
    rescue.cancel()
    may_answer.set()
    for thread in threading.enumerate():
        if thread.name == "look up turn.example":
            thread.join(20.0)

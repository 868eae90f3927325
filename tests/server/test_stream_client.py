"""One stream client and a transport that is made up."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.server import stream_client
from crowline.server.stream_client import RAW_TRANSPORT, StreamClient, StreamKey
from waiting import until

KEY = StreamKey(Address("192.0.2.1", 1000), Address("192.0.2.2", 443), Transport.TLS)


class Owner:
    """Counts, and keeps everybody."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def opened(self, stream: StreamClient) -> None: ...

    def closed(self, stream: StreamClient) -> None: ...

    def received(self, message: bytes, stream: StreamClient) -> None: ...

    def is_busy(self, stream: StreamClient) -> bool:
        return True

    def count(self, name: str) -> None:
        self.counters[name] += 1


class Below(asyncio.Transport):
    """What TLS writes to: `taken` bytes of it go away with each look."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.looks = 0
        self._taken = taken

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        return 1_000_000 - self.looks * self._taken


class Above(asyncio.Transport):
    """A secured transport whose own buffer does not change."""

    def __init__(self, below: Below) -> None:
        super().__init__({RAW_TRANSPORT: below})
        self.is_aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 100_000

    def pause_reading(self) -> None: ...

    def abort(self) -> None:
        self.is_aborted = True


async def full_client(taken: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StreamClient, Above, Below, Any]:
    """A client that has just been written more than the kernel takes."""
    monkeypatch.setattr(stream_client, "WRITE_TIME", 0.01)
    owner, below = Owner(), Below(taken)
    above = Above(below)
    client = StreamClient(owner, KEY, lambda: None)
    client.connection_made(above)
    client.pause_writing()
    return client, above, below, owner


async def test_a_slow_reader_over_tls_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS hands on all that it has, and then nothing for long: what the kernel takes is what counts."""
    client, above, below, owner = await full_client(10, monkeypatch)
    await until(lambda: below.looks >= 10)
    assert not above.is_aborted
    assert owner.counters == {}
    client.connection_lost(None)


async def test_a_reader_over_tls_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither TLS nor the kernel gets rid of a byte: that is the end."""
    client, above, _, owner = await full_client(0, monkeypatch)
    await until(lambda: above.is_aborted)
    assert owner.counters == {"stream_stuck": 1}
    client.connection_lost(None)

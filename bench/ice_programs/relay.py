"""The signalling between two bare agents of `bench/ice.py`."""

from __future__ import annotations

import heapq
import selectors
import socket
import time

SIGNALLING = 0.02  # seconds that a line takes from one agent to the other: through a server 10 ms away
PATIENCE = 20.0  # seconds for one attempt


class Relay:
    """Carries the lines of two agents to each other, and starts both when both are ready."""

    def __init__(self, pair: list[socket.socket]) -> None:
        self.pair = pair
        self.ready: set[int] = set()
        self.nominated: dict[int, float] = {}
        self.waiting: list[tuple[float, int, int, bytes]] = []
        self.count = 0

    def run(self) -> float:
        unfinished = [b"", b""]
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as selector:
            for number, each in enumerate(self.pair):
                selector.register(each, selectors.EVENT_READ, number)
            while len(self.nominated) < 2:
                now = time.monotonic()
                assert now < deadline, "no pair was nominated"
                until = min(self.waiting[0][0], deadline) if self.waiting else deadline
                for key, _ in selector.select(max(0.0, until - now)):
                    data = self.pair[key.data].recv(65536)
                    assert data, "an agent has ended"
                    *lines, unfinished[key.data] = (unfinished[key.data] + data).split(b"\n")
                    for line in lines:
                        self.hear(key.data, line)
                while self.waiting and self.waiting[0][0] <= time.monotonic():
                    _, _, number, line = heapq.heappop(self.waiting)
                    self.pair[number].sendall(line + b"\n")
        return max(self.nominated.values())

    def hear(self, number: int, line: bytes) -> None:
        word = line.split(b" ")[0]
        if word == b"ready":
            self.ready.add(number)
            if len(self.ready) == 2:
                for each in self.pair:
                    each.sendall(b"go\n")
        elif word == b"nominated":
            self.nominated.setdefault(number, float(line.split(b" ")[1]))
        elif word not in (b"state", b"data"):
            self.count += 1
            heapq.heappush(self.waiting, (time.monotonic() + SIGNALLING, self.count, 1 - number, line))

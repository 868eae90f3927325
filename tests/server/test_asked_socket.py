"""The socket that answers from the address that was asked."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.server.asked_socket import IS_SUPPORTED, AskedSocket
from needs import missing
from turn_socket import plain_socket


class Moody:
    """A socket that refuses the first run with `number`, and counts the runs that it is asked to send."""

    def __init__(self, honest: socket.socket, number: int) -> None:
        self._honest = honest
        self._numbers = [number]
        self.runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def sendmsg(self, buffers: Any, ancillary: Any, flags: int, target: Any) -> int:
        if any(level == socket.SOL_UDP for level, _, _ in ancillary):
            self.runs += 1
            if self._numbers:
                number = self._numbers.pop()
                raise OSError(number, os.strerror(number))
        return self._honest.sendmsg(buffers, ancillary, flags, target)


@pytest.mark.parametrize(
    ("number", "runs"),
    [(errno.EINVAL, 2), (errno.EMSGSIZE, 2), (errno.EIO, 1)],
    ids=["too large for one path", "too large for one path, newer kernels", "cannot segment"],
)
async def test_a_run_that_one_path_refuses_is_cut_here(number: int, runs: int) -> None:
    """Its datagrams leave one by one; only a kernel that cannot segment at all is never asked again."""
    if not IS_SUPPORTED:
        missing("only Linux says which address was asked")
    asked = AskedSocket.bind(Address("0.0.0.0", 0), lambda *_: None)
    moody = Moody(asked._socket, number)
    asked._socket = moody  # type: ignore[assignment]
    with plain_socket() as client:
        for _ in range(2):
            asked.send(Transmit(b"abcabcab", client.local, Address("127.0.0.1", 9), 3))
            assert [(await client.receive())[0] for _ in range(3)] == [b"abc", b"abc", b"ab"]
    assert moody.runs == runs
    assert asked.lost == 0
    asked.close()

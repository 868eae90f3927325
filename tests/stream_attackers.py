"""What attacks on the TCP and TLS front have in common: a front, trusting clients, and a look inside."""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import turn_front
from certificates import self_signed
from crowline.server.certificate import Certificate
from crowline.server.front import StunTurnFront
from crowline.stun.message import Message, MessageClass, Method
from turn_front import HOME
from turn_socket import PATIENCE


def front(folder: Path) -> AbstractAsyncContextManager[StunTurnFront]:
    files = self_signed(folder)
    return turn_front.front(tls_listen=[HOME], tls=Certificate(files.certificate, files.key))


def trusting() -> ssl.SSLContext:
    """Any certificate will do: these tests attack the server, not the client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def binding(kind: MessageClass = MessageClass.REQUEST) -> bytes:
    return Message(Method.BINDING, kind, os.urandom(12), ()).encode()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What still came before the other side ended the connection."""
    got = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                got += data
    return got


def streams(running: StunTurnFront) -> int:
    return len(vars(running)["_streams"])


def places(running: StunTurnFront) -> int:
    """Connections that are counted, whatever they do."""
    return len(vars(vars(running)["_streams"])["_gate"])

"""Who waits at a server, for those who share a secret with them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from crowline.base.errors import MalformedMessage, ServerUnreachable
from crowline.base.secrets import Secret
from crowline.net.websocket import HubSocket
from crowline.rendezvous import wire
from crowline.rendezvous.appointment import Appointment
from crowline.rendezvous.failures import of_error
from crowline.rendezvous.role import Role

# Seconds for all answers of a server that has been reached.
ANSWER_LIMIT = 5.0


async def who_waits(url: str, secrets: Sequence[Secret | bytes]) -> list[frozenset[Role]]:
    """For each secret the roles whose side is connected at its mailbox now.

    A server that knows nothing of appointments says that nobody is there. Raises `ServerUnreachable`, and
    `UsageError` for a URL that is none and for a secret that is not 32 bytes long.
    """
    names = [_name(secret) for secret in secrets]
    if not names:
        return []
    socket = await HubSocket.connect(url)
    try:
        for start in range(0, len(names), wire.MAX_LOOKED_UP):
            some = tuple(names[start : start + wire.MAX_LOOKED_UP])
            socket.send(wire.encode(wire.Look(wire.VERSION, some)).decode())
        async with asyncio.timeout(ANSWER_LIMIT):
            return await _read(socket, len(names))
    except TimeoutError:
        raise ServerUnreachable("The server does not answer.") from None
    finally:
        await socket.close()


async def _read(socket: HubSocket, wanted: int) -> list[frozenset[Role]]:
    found: list[frozenset[Role]] = []
    async for text in socket.messages():
        try:
            message = wire.decode_hub(text.encode() if isinstance(text, str) else b"")
        except MalformedMessage:
            continue
        if isinstance(message, wire.Error):
            if message.code == "malformed":
                # An older server does not know the question.
                return [frozenset()] * wanted
            raise of_error(message)
        if isinstance(message, wire.Waiting):
            found += [frozenset(Role(place) for place in places) for places in message.places]
        if len(found) >= wanted:
            return found[:wanted]
    raise ServerUnreachable("The server closed the connection.", hint="Try again in a moment.")


def _name(secret: Secret | bytes) -> bytes:
    return Appointment.of(secret if isinstance(secret, Secret) else Secret(secret)).name

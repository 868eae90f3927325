"""STUN (RFC 8489): message codec, integrity, transactions, responder, client, reply budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crowline.base.lazy import lazy

if TYPE_CHECKING:
    from crowline.stun.client import BindingClient, BindingEvent, Mapped, NoAnswer
    from crowline.stun.integrity import verify_integrity
    from crowline.stun.message import MalformedStun, Message, MessageClass, Method, Received, is_stun, parse
    from crowline.stun.responder import Alternates, Responder
    from crowline.stun.transaction import Schedule, Transaction

__all__ = [
    "Alternates",
    "BindingClient",
    "BindingEvent",
    "MalformedStun",
    "Mapped",
    "Message",
    "MessageClass",
    "Method",
    "NoAnswer",
    "Received",
    "Responder",
    "Schedule",
    "Transaction",
    "is_stun",
    "parse",
    "verify_integrity",
]

__getattr__ = lazy(
    __name__,
    {
        "client": "BindingClient BindingEvent Mapped NoAnswer",
        "integrity": "verify_integrity",
        "message": "MalformedStun Message MessageClass Method Received is_stun parse",
        "responder": "Alternates Responder",
        "transaction": "Schedule Transaction",
    },
)

"""STUN (RFC 8489): message codec, integrity, transactions, responder, client, reply budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crowline.base.lazy import lazy

if TYPE_CHECKING:
    from crowline.stun.client import BindingClient, BindingEvent, Mapped, NoAnswer
    from crowline.stun.integrity import (
        long_term_key,
        long_term_key_sha256,
        short_term_key,
        verify_integrity,
    )
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
    "long_term_key",
    "long_term_key_sha256",
    "parse",
    "short_term_key",
    "verify_integrity",
]

__getattr__ = lazy(
    __name__,
    {
        "client": "BindingClient BindingEvent Mapped NoAnswer",
        "integrity": "long_term_key long_term_key_sha256 short_term_key verify_integrity",
        "message": "MalformedStun Message MessageClass Method Received is_stun parse",
        "responder": "Alternates Responder",
        "transaction": "Schedule Transaction",
    },
)

"""Error codes of STUN and TURN (RFC 8489, 8656, 6062, 8016), and how a handler refuses with one."""

from __future__ import annotations

from crowline.stun.attributes import AnyAttribute

NO_ANSWER = 0  # never on the wire: the request is dropped
TRY_ALTERNATE = 300
BAD_REQUEST = 400
UNAUTHORIZED = 401
FORBIDDEN = 403
MOBILITY_FORBIDDEN = 405  # RFC 8016 §3.4
REQUEST_TIMEOUT = 408  # never on the wire: RFC 8656 §7.4 uses it for a request that nobody answered
UNKNOWN_ATTRIBUTE = 420
ALLOCATION_MISMATCH = 437
STALE_NONCE = 438
FAMILY_NOT_SUPPORTED = 440
WRONG_CREDENTIALS = 441
UNSUPPORTED_TRANSPORT = 442
PEER_FAMILY_MISMATCH = 443
CONNECTION_EXISTS = 446  # RFC 6062 §6.3
CONNECTION_FAILED = 447
QUOTA_REACHED = 486
INSUFFICIENT_CAPACITY = 508


class Refusal(Exception):
    """A request is answered with an error; raised and caught inside the server machine."""

    def __init__(self, code: int, *attributes: AnyAttribute) -> None:
        super().__init__(code)
        self.code = code
        self.attributes = attributes

"""Where a client may be sent by 300 (Try Alternate): RFC 8489 §10."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address, AddressClass, AddressPolicy, classify

# Redirections of one question. Real farms need one; RFC 8489 §10 only stops the exact repetition.
MAX_REDIRECTIONS = 3


class Alternates:
    """Follows redirections from `first`, as far as `permits` and the limit allow.

    Only redirections that were signed by a server that knows our password come here (`turn/requests.py`).
    RFC 8489 §14.8 demands that, since anybody in between could lead a client anywhere with another. So the
    300 of coturn's `--alternate-server`, which is sent before the server knows who asks and is not signed,
    counts as no answer: §10 lets a server leave the signature out, §14.8 lets no client go by it then.
    """

    def __init__(self, first: Address, permits: Callable[[Address], bool] | None = None) -> None:
        self._permits = permits or same_reach(first)
        self._seen = {first}

    def follow(self, alternate: Address | None) -> bool:
        """Whether to ask `alternate` next; each server is asked once."""
        if alternate is None or alternate in self._seen or len(self._seen) > MAX_REDIRECTIONS:
            return False
        if not self._permits(alternate):
            return False
        self._seen.add(alternate)
        return True


def same_reach(first: Address) -> Callable[[Address], bool]:
    """The policy of a client: public servers, or any as near as the one that was chosen by the user.

    A server on the internet cannot point its clients at their own networks; one inside may.
    """
    public, own = AddressPolicy(), classify(first.host)

    def permits(alternate: Address) -> bool:
        if public.permits(alternate):
            return True
        if own is AddressClass.NEVER:
            return alternate.port != 0 and alternate.host == first.host
        return own is AddressClass.CLOSED and alternate.port != 0 and classify(alternate.host) is own

    return permits

"""The ports of one gateway that the owner wants: asked for, kept and closed, in the gateway's protocol."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.errors import UsageError
from crowline.portmap import natpmp, pcp
from crowline.portmap.events import (
    Dialect,
    PortClosed,
    PortLost,
    PortMapEvent,
    PortOpened,
    PortRefused,
    PortRenewed,
    Reason,
    Trouble,
)
from crowline.portmap.lease import MAX_LEASE, MIN_LEASE, Lease, Phase, Wanted
from crowline.portmap.schedule import CLOSING, NAT_PMP, PCP, PCP_AWAITED, Entropy

MAX_PORTS = 64  # for one client: more than any program wants, and few enough for one table
# Seconds to the next request after a failure that may pass soon, and after one that will not; what a gateway
# says itself (RFC 6887 §7.4) is brought between them, so that none can be asked at once or never again.
SOON, LATER = 30.0, 1800.0


class Ports:
    """`dialect` is what the gateway speaks, ``None`` while it is looked for. `is_unanswered` says that one
    request was given up, and the gateway is to be looked for anew."""

    def __init__(
        self,
        host: str,
        entropy: Entropy,
        lifetime: int,
        transmit: Callable[[bytes], None],
        events: deque[PortMapEvent],
        counters: Counter[str],
    ) -> None:
        self.dialect: Dialect | None = None
        self.is_unanswered = False
        self.leases: dict[int, Lease] = {}
        self._host = host
        self._entropy = entropy
        self._lifetime = lifetime
        self._transmit = transmit
        self._events = events
        self._counters = counters
        self._numbers = 0

    def open(self, wanted: Wanted, now: float) -> int:
        """Begin to ask. Raises `UsageError`."""
        self._check(wanted)
        if wanted.third_party is not None:
            wanted = replace(wanted, third_party=Address.parse(wanted.third_party, 0).host)
        self._numbers += 1
        lease = Lease(self._numbers, wanted, wanted.nonce or self._entropy(pcp.NONCE_SIZE))
        lease.outside_port = wanted.suggested_port
        self.leases[lease.number] = lease
        self.ask(lease, now)
        return lease.number

    def close(self, number: int, now: float) -> None:
        """Tell the gateway, if it can know of it."""
        lease = self.leases.get(number)
        if lease is None or lease.phase is Phase.CLOSING:
            return
        if not lease.was_sent or self.dialect is None:
            self.closed(lease, confirmed=not lease.was_sent)
            return
        lease.close(CLOSING, self._entropy, now)
        self.act(lease, now)

    def ask(self, lease: Lease, now: float, *, delay: float = 0.0) -> None:
        """Begin to ask for it, as soon as there is a gateway."""
        if self.dialect is None:
            lease.wait_for_gateway()
            return
        if self.dialect is Dialect.NAT_PMP and lease.wanted.third_party is not None:
            self._rest(lease, Trouble.UNABLE, LATER, now)
            return
        schedule = NAT_PMP
        if self.dialect is Dialect.PCP:
            schedule = PCP_AWAITED if lease.is_awaited else PCP
        lease.ask(schedule, self._entropy, now + delay)
        if not delay:
            self.act(lease, now)

    def act(self, lease: Lease, now: float) -> None:
        """What is due for it."""
        if lease.phase is Phase.RESTING:
            self.ask(lease, now)
        elif lease.is_expired(now):
            self.lose(lease, Trouble.EXPIRED)
            self.ask(lease, now)
        elif lease.phase is Phase.HELD:
            self.renew(lease, now)
        elif lease.repeats is not None and lease.repeats.send(now):
            self._request(lease, 0 if lease.phase is Phase.CLOSING else self._lifetime)
        elif lease.phase is Phase.CLOSING:
            self.closed(lease, confirmed=False)
        else:
            lease.wait_for_gateway()
            self.is_unanswered = True
            self._events.append(PortRefused(lease.number, Trouble.SILENT, 0.0))

    def renew(self, lease: Lease, now: float) -> None:
        """Ask once for what is held, and plan the next time."""
        lease.plan_renewal(self._entropy, now)
        self._request(lease, self._lifetime)

    def _request(self, lease: Lease, lifetime: int) -> None:
        wanted = lease.wanted
        port = lease.suggested_port if lifetime else 0
        if self.dialect is None:
            return
        lease.was_sent = lease.is_asked = True
        if self.dialect is Dialect.NAT_PMP:
            self._transmit(natpmp.map_request(wanted.protocol, wanted.inside_port, port, lifetime))
            if lease.phase is Phase.HELD:
                self._transmit(natpmp.address_request())
            return
        suggested = pcp.any_outside(self._host)
        if lease.outside is not None and lifetime and not wanted.exactly:
            suggested = lease.outside
        self._transmit(
            pcp.map_request(
                self._host,
                lease.nonce,
                wanted.protocol,
                wanted.inside_port,
                Address(suggested.host, port),
                lifetime,
                prefer_failure=wanted.exactly,
                third_party=wanted.third_party,
            )
        )

    def grant(self, lease: Lease, host: str | None, port: int, lifetime: int, now: float) -> None:
        """The gateway says yes; whether that is of any use is another question."""
        if lease.phase is Phase.CLOSING:
            if lifetime == 0:
                self.closed(lease, confirmed=True)
        elif lease.phase not in (Phase.ASKING, Phase.HELD) or not lease.was_sent:
            self._drop("unsolicited")
        elif lifetime < MIN_LEASE:
            self._decline(lease, Trouble.TOO_SHORT, now)
        elif port == 0 or (lease.wanted.exactly and port != lease.wanted.suggested_port):
            self._decline(lease, Trouble.OTHER_PORT, now)
        elif host is not None and classify(host) is AddressClass.NEVER:
            self._decline(lease, Trouble.NO_ADDRESS, now)
        else:
            before = lease.outside
            lease.hold(port, min(lifetime, MAX_LEASE), self._entropy, now)
            if host is not None:
                self.tell(lease, Address(host, port))
            if before is not None and before == lease.outside:
                self._events.append(PortRenewed(lease.number, lease.lifetime))

    def tell(self, lease: Lease, outside: Address) -> None:
        """It is open under that address."""
        if outside != lease.outside:
            lease.outside = outside
            self._events.append(PortOpened(lease.number, outside, lease.lifetime))

    def _decline(self, lease: Lease, reason: Trouble, now: float) -> None:
        """Give back what was given, once: it ends by itself if that is lost."""
        self._request(lease, 0)
        self.lose(lease, reason)
        self._rest(lease, reason, LATER, now)

    def fail(self, lease: Lease, reason: Reason, retry_in: float, now: float) -> None:
        """The gateway says no. What was given before holds until its end, and is asked for until then."""
        if lease.phase is Phase.CLOSING:
            self.closed(lease, confirmed=False)
        elif lease.phase is Phase.HELD and lease.is_asked and lease.due is not None:
            lease.is_asked = False
            self._events.append(PortRefused(lease.number, reason, lease.due - now))
        elif lease.phase is Phase.ASKING and lease.is_asked:
            self._rest(lease, reason, retry_in, now)
        else:
            self._drop("unsolicited")

    def _rest(self, lease: Lease, reason: Reason, retry_in: float, now: float) -> None:
        lease.rest(now + retry_in)
        self._events.append(PortRefused(lease.number, reason, retry_in))

    def lose(self, lease: Lease, reason: Reason) -> None:
        """What the owner was told holds no more."""
        if lease.outside is not None:
            lease.outside = None
            self._events.append(PortLost(lease.number, reason))

    def closed(self, lease: Lease, *, confirmed: bool) -> None:
        """Forget it; the gateway has closed it if `confirmed`."""
        del self.leases[lease.number]
        self._events.append(PortClosed(lease.number, confirmed))

    def _check(self, wanted: Wanted) -> None:
        if wanted.protocol not in (6, 17) or not 1 <= wanted.inside_port <= 0xFFFF:
            raise UsageError(f"port {wanted.inside_port} of protocol {wanted.protocol} cannot be opened")
        if not (1 if wanted.exactly else 0) <= wanted.suggested_port <= 0xFFFF:
            raise UsageError(f"port {wanted.suggested_port} cannot be asked for")
        if wanted.nonce and len(wanted.nonce) != pcp.NONCE_SIZE:
            raise UsageError(f"a nonce has {pcp.NONCE_SIZE} bytes")
        if not _is_family_of(self._host, wanted.third_party):
            raise UsageError("the other host is none of this one's family")
        if len(self.leases) >= MAX_PORTS:
            raise UsageError(f"{MAX_PORTS} ports are open already")
        for lease in self.leases.values():
            if _same_port(lease.wanted, wanted):
                raise UsageError(f"port {wanted.inside_port} is open already, or about to be closed")

    def _drop(self, what: str) -> None:
        self._counters[what] += 1


def _same_port(one: Wanted, other: Wanted) -> bool:
    key = (other.protocol, other.inside_port, other.third_party)
    return (one.protocol, one.inside_port, one.third_party) == key


def _is_family_of(host: str, other: str | None) -> bool:
    try:
        return other is None or Address.parse(other, 0).is_ipv6 == (":" in host)
    except ValueError:
        return False

"""The client of one gateway: which protocol it speaks, its outside address, and the ports that it opens.

PCP is asked for first and NAT-PMP beside it from the second try on; what the gateway answers is spoken from
then on. Answers count only from the gateway's own port 5351, and announcements likewise.
"""

from __future__ import annotations

from collections import Counter, deque

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.portmap import natpmp, pcp
from crowline.portmap.epoch import Epoch
from crowline.portmap.events import (
    Dialect,
    GatewayFound,
    GatewaySilent,
    OutsideHost,
    PortMapEvent,
    Trouble,
)
from crowline.portmap.lease import MAX_LEASE, MIN_LEASE, Lease, Phase, Wanted
from crowline.portmap.natpmp import NatPmpResult
from crowline.portmap.pcp import PcpResult
from crowline.portmap.ports import LATER, SOON, Ports
from crowline.portmap.schedule import NAT_PMP, PROBE, Entropy, Repeats, fraction

PORT = 5351  # RFC 6886 §3.1, RFC 6887 §19.1
LIFETIME = 7200  # seconds, what RFC 6886 §3.3 recommends: a killed program's port is closed after two hours
# Seconds after which a gateway that spoke no protocol is tried again; its owner may have switched it on.
PROBE_AGAIN = 600.0
# Seconds over which the requests of many clients are spread after an announcement (RFC 6887 §14.1.3).
ANNOUNCED_SPREAD = 5.0

_PASSING = {NatPmpResult.NETWORK_FAILURE, NatPmpResult.OUT_OF_RESOURCES}


class MappingClient:
    """Sans-IO; begins to look for the gateway at once. `host` is this side's address towards `gateway`.

    `lifetime` in seconds is what is asked for. Ports for other hosts (`Wanted.third_party`) need
    `allows_third_party`. `counters` says what was dropped: ``stranger``, ``malformed``, ``mismatch`` (another
    nonce or port than asked), ``unsolicited``.
    """

    def __init__(
        self,
        host: str,
        gateway: str,
        entropy: Entropy,
        now: float,
        *,
        lifetime: int = LIFETIME,
        allows_third_party: bool = False,
    ) -> None:
        if not MIN_LEASE <= lifetime <= MAX_LEASE:
            raise UsageError(f"a lifetime of {lifetime} s is not in {MIN_LEASE:.0f} to {MAX_LEASE:.0f} s")
        self.counters: Counter[str] = Counter()
        self.outside_host: str | None = None
        self._host = host
        self._server = Address(gateway, PORT)
        self._entropy = entropy
        self._allows_third_party = allows_third_party
        self._epoch = Epoch(is_strict=True)
        self._probe: Repeats | None = None
        self._speaks_pcp = True  # until the gateway denies it
        self._spoke: Dialect | None = None
        self._asking_host: Repeats | None = None
        self._transmits: deque[Transmit] = deque()
        self._events: deque[PortMapEvent] = deque()
        self._ports = Ports(host, entropy, lifetime, self._transmit, self._events, self.counters)
        self._leases = self._ports.leases
        self._look_for_gateway(now)
        self.handle_timeout(now)

    @property
    def dialect(self) -> Dialect | None:
        """What the gateway speaks; ``None`` while it is looked for."""
        return self._ports.dialect

    @property
    def is_idle(self) -> bool:
        """Nothing is open or being closed."""
        return not self._leases

    def open(self, wanted: Wanted, now: float) -> int:
        """Open a port and keep it open; the number that the events name it by.

        Raises `UsageError` for what cannot be asked, for what was asked before, and beyond `MAX_PORTS`.
        """
        if wanted.third_party is not None and not self._allows_third_party:
            raise UsageError("ports for other hosts were not allowed")
        return self._ports.open(wanted, now)

    def nonce_of(self, number: int) -> bytes:
        """PCP's nonce of that port, by which whoever has it can renew and close it; empty for none."""
        lease = self._leases.get(number)
        return lease.nonce if lease is not None else b""

    def close(self, number: int, now: float) -> None:
        """Close a port again: `PortClosed` follows. A number that is closed already says nothing."""
        self._ports.close(number, now)

    def close_all(self, now: float) -> None:
        """Close what is open; over when `is_idle`, within 1.75 s."""
        for number in list(self._leases):
            self._ports.close(number, now)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if source != self._server:
            self.counters["stranger"] += 1
            return
        try:
            if len(data) and data[0] == natpmp.VERSION:
                self._on_nat_pmp(natpmp.parse(data), now)
            else:
                self._on_pcp(pcp.parse(data), now)
        except MalformedMessage:
            self.counters["malformed"] += 1

    def handle_timeout(self, now: float) -> None:
        if self._probe is not None and self._probe.due <= now:
            self._look(self._probe, now)
        if self._asking_host is not None and self._asking_host.due <= now:
            if self._asking_host.send(now):
                self._transmit(natpmp.address_request())
            else:
                self._asking_host = None
        for lease in list(self._leases.values()):
            if lease.due is not None and lease.due <= now:
                self._ports.act(lease, now)
        if self._ports.is_unanswered:
            self._ports.is_unanswered = False
            self._look_for_gateway(now)

    def next_timeout(self) -> float | None:
        times = [lease.due for lease in self._leases.values()]
        times += [repeats.due for repeats in (self._probe, self._asking_host) if repeats is not None]
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> PortMapEvent | None:
        return self._events.popleft() if self._events else None

    # --- the gateway ----------------------------------------------------------------------------------

    def _look_for_gateway(self, at: float) -> None:
        self._ports.dialect = None
        self._asking_host = None
        self._speaks_pcp = True
        self._probe = Repeats(PROBE, self._entropy, at)

    def _look_soon(self, now: float) -> None:
        """A gateway that was silent says that it is there: whoever it is, it must answer to be believed."""
        if self._probe is not None and not self._probe.sends:
            at = now + ANNOUNCED_SPREAD * fraction(self._entropy)
            self._probe.due = min(self._probe.due, at)

    def _look(self, probe: Repeats, now: float) -> None:
        if not probe.send(now):
            self._fall_silent(now)
            return
        if self._speaks_pcp:
            self._transmit(pcp.announce_request(self._host))
        if not self._server.is_ipv6 and (probe.sends > 1 or not self._speaks_pcp):
            self._transmit(natpmp.address_request())

    def _fall_silent(self, now: float) -> None:
        self._look_for_gateway(now + PROBE_AGAIN)
        for lease in list(self._leases.values()):
            if lease.phase is Phase.ASKING:
                lease.wait_for_gateway()
            elif lease.phase is Phase.CLOSING:
                self._ports.closed(lease, confirmed=False)
        self._events.append(GatewaySilent(PROBE_AGAIN))

    def _speak(self, dialect: Dialect, now: float) -> None:
        """The gateway speaks that; what another dialect has opened there is asked for anew."""
        self._ports.dialect = dialect
        self._probe = None
        self._epoch = Epoch(is_strict=dialect is Dialect.PCP)
        self._events.append(GatewayFound(dialect))
        for lease in list(self._leases.values()):
            if lease.phase is Phase.HELD and dialect is self._spoke:
                self._ports.renew(lease, now)
            elif lease.phase is not Phase.CLOSING:
                self._ports.lose(lease, Trouble.RESTARTED)
                self._ports.ask(lease, now)
        self._spoke = dialect

    def _refuse_pcp(self, now: float) -> None:
        """The gateway does not speak PCP; NAT-PMP is left, for IPv4."""
        self._speaks_pcp = False
        if self._server.is_ipv6:
            self._fall_silent(now)
        elif self._probe is not None:
            self._probe = Repeats(PROBE, self._entropy, now)
            self._look(self._probe, now)
        else:
            self._speak(Dialect.NAT_PMP, now)
            self._ask_host(now)

    def _has_asked(self) -> bool:
        """Whether an answer is to come at all."""
        is_looking = self._probe is not None and self._probe.sends > 0
        return (
            is_looking
            or self._asking_host is not None
            or any(lease.is_asked for lease in self._leases.values())
        )

    def _restarted(self, now: float, answered: Lease | None, *, is_announced: bool) -> None:
        """The gateway has lost its mappings, but for one that it has just answered for."""
        spread = ANNOUNCED_SPREAD if is_announced else 0.0
        for lease in self._leases.values():
            if lease.phase is Phase.HELD and lease is not answered:
                self._ports.lose(lease, Trouble.RESTARTED)
                self._ports.ask(lease, now, delay=spread * fraction(self._entropy))
        if self.dialect is Dialect.NAT_PMP and self._asking_host is None:
            self._ask_host(now)

    def _ask_host(self, at: float) -> None:
        self._asking_host = Repeats(NAT_PMP, self._entropy, at)

    def _host_is(self, host: str) -> None:
        if host == self.outside_host:
            return
        self.outside_host = host
        self._events.append(OutsideHost(host))

    # --- answers --------------------------------------------------------------------------------------

    def _on_nat_pmp(self, answer: natpmp.NatPmpAnswer, now: float) -> None:
        if answer.result is NatPmpResult.UNSUPPORTED_VERSION:
            if self._has_asked() and self._speaks_pcp and self.dialect is not Dialect.NAT_PMP:
                self._refuse_pcp(now)
            else:
                self._count("unsolicited")
            return
        is_address = isinstance(answer, natpmp.AddressAnswer)
        if is_address and self.dialect is None:
            if self._probe is not None and self._probe.sends:
                self._speak(Dialect.NAT_PMP, now)
            else:
                self._look_soon(now)
        if self.dialect is not Dialect.NAT_PMP:
            self._count("unsolicited")
            return
        lease = self._lease_of(answer) if isinstance(answer, natpmp.MapAnswer) else None
        if lease is None and not is_address:
            self._count("unsolicited")
            return
        is_announced = not self._has_asked()
        if self._epoch.is_lost(answer.epoch, now):
            self._restarted(now, None if answer.result else lease, is_announced=is_announced)
        if isinstance(answer, natpmp.AddressAnswer):
            self._on_address(answer, now)
        elif isinstance(answer, natpmp.MapAnswer) and lease is not None:
            if answer.result is NatPmpResult.SUCCESS:
                self._ports.grant(lease, self.outside_host, answer.outside_port, answer.lifetime, now)
            else:
                self._ports.fail(lease, answer.result, SOON if answer.result in _PASSING else LATER, now)

    def _on_address(self, answer: natpmp.AddressAnswer, now: float) -> None:
        if answer.host is None or classify(answer.host) is AddressClass.NEVER:
            self._ask_host(now + SOON)
            return
        self._asking_host = None
        self._host_is(answer.host)
        for lease in self._leases.values():
            if lease.phase is Phase.HELD:
                self._ports.tell(lease, Address(answer.host, lease.outside_port))

    def _lease_of(self, answer: natpmp.MapAnswer) -> Lease | None:
        """The lease that waits for this answer. A failure without a port is taken for the oldest one's."""
        for lease in self._leases.values():
            wanted = lease.wanted
            is_meant = answer.inside_port in (wanted.inside_port, None) and wanted.protocol == answer.protocol
            if is_meant and lease.is_asked:
                return lease
        return None

    def _on_pcp(self, answer: pcp.PcpAnswer, now: float) -> None:
        is_probed = self._probe is not None and self._probe.sends > 0
        if answer.operation == pcp.Operation.ANNOUNCE and self.dialect is None:
            if is_probed:
                self._on_probe(answer, now)
            else:
                self._count("unsolicited")
                self._look_soon(now)
            return
        if self.dialect is not Dialect.PCP:
            self._count("unsolicited")
            if answer.operation == pcp.Operation.ANNOUNCE and self.dialect and self._asking_host is None:
                # A gateway that speaks both announces its restart by this one alone; its clock tells.
                self._ask_host(now)
            return
        lease = self._lease_by_nonce(answer)
        if lease is None and (answer.operation != pcp.Operation.ANNOUNCE or answer.result):
            self._count("mismatch")
            return
        if lease is not None and answer.result is PcpResult.UNSUPP_VERSION:
            self._refuse_pcp(now)
            return
        if self._epoch.is_lost(answer.epoch, now):
            answered = None if answer.result else lease
            self._restarted(now, answered, is_announced=not self._has_asked())
        if lease is None or answer.mapped is None:
            return
        if answer.result is PcpResult.SUCCESS:
            outside = answer.mapped.outside
            self._ports.grant(lease, outside.host, outside.port, answer.lifetime, now)
            if lease.outside is not None:
                self._host_is(lease.outside.host)
        else:
            self._ports.fail(lease, answer.result, min(max(answer.lifetime, SOON), LATER), now)

    def _on_probe(self, answer: pcp.PcpAnswer, now: float) -> None:
        """A refusal of the version may be meant for NAT-PMP, once that was asked for too."""
        if answer.result is not PcpResult.UNSUPP_VERSION:
            self._speak(Dialect.PCP, now)
            self._epoch.is_lost(answer.epoch, now)
        elif self._probe is not None and self._probe.sends == 1 and self._speaks_pcp:
            self._refuse_pcp(now)

    def _lease_by_nonce(self, answer: pcp.PcpAnswer) -> Lease | None:
        mapped = answer.mapped
        if mapped is None or answer.operation != pcp.Operation.MAP:
            return None
        key = (mapped.nonce, mapped.protocol, mapped.inside_port)
        for lease in self._leases.values():
            wanted = lease.wanted
            is_meant = answer.result or answer.third_party == wanted.third_party
            if is_meant and key == (lease.nonce, wanted.protocol, wanted.inside_port):
                return lease
        return None

    def _transmit(self, data: bytes) -> None:
        self._transmits.append(Transmit(data, self._server))

    def _count(self, what: str) -> None:
        self.counters[what] += 1

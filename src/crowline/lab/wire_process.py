"""The process that carries the laboratory's packets: tunnel devices and a clock around a `Wire`.

    python -m crowline.lab.wire_process PREFIX

It takes the commands of `lab/wire_commands.py` on standard input and answers each on standard output. When
its input ends without a goodbye, the owner has died: it removes everything of that prefix and ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import sys
import time
from functools import partial

import msgspec

from crowline.lab import leftovers
from crowline.lab.gateway import Gateway
from crowline.lab.impairment import Impairment
from crowline.lab.profile import PortMapping
from crowline.lab.tun import LARGEST_READ, Tun, open_tun
from crowline.lab.wire import Place, Port, Wire
from crowline.lab.wire_commands import (
    AddGateway,
    AddPort,
    Advance,
    Answer,
    AnyCommand,
    Bye,
    GetCounters,
    SetCore,
    SetFirewall,
    SetImpairment,
    Settle,
)

READS_PER_TURN = 32  # packets taken from one device before the others and the clock get their turn
LONGEST_COMMAND = 65536  # bytes
_BEFORE_OTHERS = -10  # nice value: delays are this process's product
_OK = Answer()


class WireProcess:
    """Reads commands and packets until the owner says goodbye or is gone."""

    def __init__(self) -> None:
        self.wire = Wire()
        self._places: dict[str, Place] = {}
        self._ports: dict[int, Port] = {}
        self._tuns: list[Tun] = []
        self._buffer = bytearray(LARGEST_READ)
        self._commands = b""
        self._decoder = msgspec.json.Decoder(AnyCommand)
        self._chance = random.Random()
        self._ahead = 0.0  # seconds by which the translators' clock is before the machine's
        self._settled_by: float | None = None  # when to answer that all is still, true or not
        self._takes_runs = True
        self._said_bye = False

    def run(self) -> bool:
        """Work until the end of the input; whether the owner has said goodbye."""
        stdin = sys.stdin.fileno()
        while not self._said_bye:
            readable, _, _ = select.select([stdin, *self._ports], [], [], self._patience())
            for descriptor in readable:
                if descriptor != stdin:
                    self._read_packets(descriptor)
                elif not self._read_commands(stdin):
                    return False
            self.wire.handle_timeout(self._now())
            if self._settled_by is not None:
                self._answer_when_settled()
        return True

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    def _patience(self) -> float | None:
        due = self.wire.next_timeout()
        patience = None if due is None else max(0.0, due - self._now())
        if self._settled_by is None:
            return patience
        left = max(0.0, self._settled_by - time.monotonic())
        return left if patience is None else min(left, patience)

    def _read_packets(self, descriptor: int) -> None:
        port, view = self._ports[descriptor], memoryview(self._buffer)
        for _ in range(READS_PER_TURN):
            try:
                size = os.readv(descriptor, [self._buffer])
            except BlockingIOError:
                return
            except OSError:  # the device is down or its namespace is gone
                del self._ports[descriptor]
                return
            self.wire.forward(port, bytearray(view[:size]), self._now())

    def _answer_when_settled(self) -> None:
        assert self._settled_by is not None
        if time.monotonic() < self._settled_by:
            readable, _, _ = select.select([*self._ports], [], [], 0)
            if readable or self.wire.next_timeout() is not None:
                return
        self._settled_by = None
        _answer(_OK)

    def _read_commands(self, stdin: int) -> bool:
        data = os.read(stdin, LONGEST_COMMAND)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            try:
                answer = self._obey(self._decoder.decode(line))
            except (KeyError, TypeError, ValueError, OSError) as failure:
                answer = Answer(error=f"{type(failure).__name__}: {failure}")
            if answer is not None:
                _answer(answer)
        return bool(data)

    def _obey(self, command: AnyCommand) -> Answer | None:
        """The answer, or ``None`` where it comes later or not at all."""
        match command:
            case AddGateway():
                self._add_gateway(command)
            case AddPort():
                self._add_port(command)
            case SetImpairment():
                self._impair(command)
            case SetFirewall():
                access = self._places[command.name].access
                access.firewall, access.proxy = command.firewall, command.proxy
            case SetCore():
                self.wire.core_hops = command.hops
            case GetCounters():
                return Answer(counters=dict(self.wire.counters))
            case Advance():
                self._ahead += command.seconds
            case Settle():
                self._settled_by = time.monotonic() + command.patience
                return None
            case Bye():
                self._said_bye = True
                return None
        return _OK

    def _add_gateway(self, command: AddGateway) -> None:
        if command.behaviour is None:
            gateway = Gateway(command.name, "", None)
        else:
            gateway = Gateway.build(
                command.name, command.external, command.behaviour, os.urandom, nat64=command.nat64
            )
        if command.port_mapping is not PortMapping.NONE:
            gateway.open_ports(command.own, command.port_mapping, self._now())
        gateway.outer = self._gateway(command.outer)
        self._places[gateway.name] = gateway
        if not gateway.external:
            return
        if gateway.outer is not None:
            gateway.outer.admit(gateway.external, gateway)
        else:
            self.wire.route([gateway.external], gateway)

    def _add_port(self, command: AddPort) -> None:
        outer = self._gateway(command.outer)
        tun = open_tun(command.device, command.namespace)
        self._tuns.append(tun)
        if not self._takes_runs:
            tun.refuse_runs()
        port = Port(command.name, partial(_write, tun), outer=outer)
        self._places[port.name] = port
        self._ports[tun.descriptor] = port
        for host in command.hosts:
            if outer is not None:
                outer.admit(host, port, firewalled=command.firewalled, entropy=os.urandom)
            if outer is None or ":" in host or not outer.external:
                self._route_down(host, port)

    def _route_down(self, host: str, place: Place) -> None:
        """An address that is not translated: every gateway above knows the way to it."""
        while place.outer is not None:
            place.outer.inside.setdefault(host, place)
            place = place.outer
        self.wire.route([host], place)

    def _gateway(self, name: str) -> Gateway | None:
        place = self._places[name] if name else None
        if isinstance(place, Port):
            raise ValueError(f"{name} is no gateway")
        return place

    def _impair(self, command: SetImpairment) -> None:
        how = command.impairment
        self._places[command.name].access.impair(how, self._chance, self.wire.counters)
        if self._takes_runs and how != Impairment(delay=how.delay):
            # What is lost or queued must be single packets, not runs of fifty.
            self._takes_runs = False
            for tun in self._tuns:
                tun.refuse_runs()


def _answer(answer: Answer) -> None:
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


def _write(tun: Tun, packet: bytearray) -> bool:
    try:
        os.write(tun.descriptor, packet)
    except OSError:  # a full queue or a device that is down: a packet is lost, as anywhere
        return False
    return True


def main(prefix: str) -> None:
    with contextlib.suppress(PermissionError):  # a container's root may lack it: delays get less exact
        os.nice(_BEFORE_OTHERS)
    if not WireProcess().run():
        leftovers.remove(prefix)


if __name__ == "__main__":
    main(sys.argv[1])

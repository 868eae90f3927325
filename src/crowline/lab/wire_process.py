"""The process that carries the laboratory's packets: tunnel devices and a clock around a `Wire`.

    python -m crowline.lab.wire_process PREFIX

It takes commands on standard input, one JSON object a line, and answers each with one on standard output:

    {"do": "gateway", "name", "delay", "external", "behaviour"}
    {"do": "port", "name", "delay", "namespace", "device", "hosts", "gateway", "firewalled"}
    {"do": "set", "name", "delay" and/or "blocked"}
    {"do": "counters"}
    {"do": "bye"}

When its input ends without a `bye`, the owner has died: it removes everything of that prefix and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from crowline.lab import leftovers
from crowline.lab.gateway import Gateway
from crowline.lab.presets import preset
from crowline.lab.tun import LARGEST_READ, Tun, open_tun
from crowline.lab.wire import Place, Port, Wire

READS_PER_TURN = 32  # packets taken from one device before the others and the clock get their turn
LONGEST_COMMAND = 65536  # bytes
_BEFORE_OTHERS = -10  # nice value: delays are this process's product


class WireProcess:
    """Reads commands and packets until the owner says goodbye or is gone."""

    def __init__(self) -> None:
        self.wire = Wire()
        self._places: dict[str, Place] = {}
        self._ports: dict[int, Port] = {}
        self._buffer = bytearray(LARGEST_READ)
        self._commands = b""
        self._said_bye = False

    def run(self) -> bool:
        """Work until the end of the input; whether the owner has said goodbye."""
        stdin = sys.stdin.fileno()
        while not self._said_bye:
            due = self.wire.next_timeout()
            patience = None if due is None else max(0.0, due - time.monotonic())
            readable, _, _ = select.select([stdin, *self._ports], [], [], patience)
            for descriptor in readable:
                if descriptor != stdin:
                    self._read_packets(descriptor)
                elif not self._read_commands(stdin):
                    return False
            self.wire.handle_timeout(time.monotonic())
        return True

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
            self.wire.forward(port, bytearray(view[:size]), time.monotonic())

    def _read_commands(self, stdin: int) -> bool:
        data = os.read(stdin, LONGEST_COMMAND)
        *lines, self._commands = (self._commands + data).split(b"\n")
        for line in lines:
            self._obey(line)
        return bool(data)

    def _obey(self, line: bytes) -> None:
        try:
            command = json.loads(line)
            verbs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
                "gateway": self._add_gateway,
                "port": self._add_port,
                "set": self._set,
                "counters": lambda _: {"counters": dict(self.wire.counters)},
                "bye": self._bye,
            }
            answer = {"ok": True, **verbs[command["do"]](command)}
        except (KeyError, TypeError, ValueError, OSError) as failure:
            answer = {"ok": False, "error": f"{type(failure).__name__}: {failure}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    def _add_gateway(self, command: dict[str, Any]) -> dict[str, Any]:
        behaviour = preset(command["behaviour"]).nats[0]
        gateway = Gateway.build(command["name"], command["delay"], command["external"], behaviour, os.urandom)
        self._places[gateway.name] = gateway
        self.wire.route([gateway.external], gateway)
        return {}

    def _add_port(self, command: dict[str, Any]) -> dict[str, Any]:
        tun = open_tun(command["device"], command["namespace"])
        port = Port(command["name"], command["delay"], partial(_write, tun))
        self._places[port.name] = port
        self._ports[tun.descriptor] = port
        gateway = self._places[command["gateway"]] if command.get("gateway") else None
        if not isinstance(gateway, Gateway):
            self.wire.route(command["hosts"], port)
            return {"segments_udp": tun.segments_udp}
        port.gateway = gateway
        for host in command["hosts"]:
            gateway.admit(host, port, firewalled=command["firewalled"], entropy=os.urandom)
            if ":" in host:
                self.wire.route([host], gateway)
        return {"segments_udp": tun.segments_udp}

    def _set(self, command: dict[str, Any]) -> dict[str, Any]:
        place = self._places[command["name"]]
        place.delay = float(command.get("delay", place.delay))
        place.blocked = frozenset(command.get("blocked", place.blocked))
        return {}

    def _bye(self, command: dict[str, Any]) -> dict[str, Any]:
        self._said_bye = True
        return {}


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

"""What a user writes: settings, addresses, ranges, sizes and URLs; and addresses that strangers name."""

from __future__ import annotations

import tempfile
from pathlib import Path

from crowline.base.addresses import Address, AddressClass, AddressPolicy, classify, hidden_host
from crowline.base.errors import LocalProblem, UsageError
from crowline.net.websocket import hub_url
from crowline.server.config import parse_endpoint, parse_host, parse_network, parse_ports, parse_size
from crowline.server.forwarded import true_source
from crowline.server.settings import build, load
from fuzz.harness import Harness

_FILE = Path(tempfile.gettempdir()) / "crowline-fuzz-settings.toml"
_PROXIES = (parse_network("10.0.0.0/8"), parse_network("fd00::/8"))
_NUMBERS = (
    b"-0",
    b"+1",
    b" 1",
    b"1_0",
    "\uff11".encode(),
    b"9" * 5000,
    b"65536",
    b"1e3",
    "\u0661".encode(),
    b"0x10",
)
_HOSTS = (
    b"192.0.2.1",
    b"::1",
    b"::ffff:127.0.0.1",
    b"64:ff9b::a9fe:a9fe",
    b"fe80::1%eth0",
    b"0.0.0.0",
    b"[::]",
)


def run_file(data: bytes) -> None:
    """A file is a configuration, or a sentence says why not."""
    _FILE.write_bytes(data)
    build(load(_FILE))


def run_words(data: bytes) -> None:
    """Each parser of one value takes it or says why not; none does anything else."""
    text = data.decode("utf-8", "replace")
    for parse in (
        lambda it: parse_endpoint(it, 1),
        parse_host,
        parse_network,
        parse_ports,
        parse_size,
        hub_url,
    ):
        try:
            parse(text)
        except UsageError:
            continue


def run_address(data: bytes) -> None:
    """What is no address is talked to by nobody; what is one is written in one way only."""
    text = data.decode("utf-8", "replace")
    kind, hidden = classify(text), hidden_host(text)
    assert hidden is None or classify(hidden) <= kind
    source = true_source("10.1.1.1", text, _PROXIES)
    assert Address.parse(source, 0).host == source
    if AddressPolicy().permits(Address(text, 5000)):
        assert kind is AddressClass.OPEN
    address = Address.parse(text, 5000)
    assert Address.parse(address.host, 5000) == address
    assert len(address.packed) == (16 if address.is_ipv6 else 4)
    assert classify(address.host) is kind


HARNESSES = (
    Harness(
        name="settings-file",
        run=run_file,
        module="crowline/server/",
        seeds=(
            b'listen = "192.0.2.1:8080"\nallow-peer = ["10.0.0.0/8"]\nbudget = "1M"\nhub-rate = "64K"\n',
            b'relay-ports = "50000-60000"\ntrust-proxy = ["::1/128"]\norigins = ["https://a.b"]\nmotd = ""\n',
            b"claims-per-minute = 5\nbudget = 100\n",
        ),
        # A setting that makes no sense; a file that cannot be read.
        allowed=(UsageError, LocalProblem),
        tokens=(*_NUMBERS, b'"', b"[[", b"\n", b"= {}", b"= 1979-05-27", b"= nan", b"[" * 100, b"a." * 100),
    ),
    Harness(
        name="settings-words",
        run=run_words,
        module="crowline/server/config",
        seeds=(
            b"192.0.2.1:8080",
            b"[2001:db8::1]:80",
            b":80",
            b"10.0.0.0/8",
            b"50000-60000",
            b"4M",
            b"wss://a.b/v1",
        ),
        tokens=(*_NUMBERS, *_HOSTS, b"-", b":", b"/", b"://", b"]", b"["),
    ),
    Harness(
        name="address",
        run=run_address,
        module="crowline/base/addresses",
        seeds=(*_HOSTS, b"2001:db8::1", b"10.1.1.1, 192.0.2.9, 10.2.2.2"),
        allowed=(ValueError,),  # the one error that `Address.parse` promises
        tokens=(*_NUMBERS, *_HOSTS, b"::", b".", b","),
    ),
)

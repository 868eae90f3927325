"""Settings by name, as flags and configuration files give them, made into a `ServerConfig`."""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from crowline.base.addresses import Address, IPNetwork
from crowline.base.errors import LocalProblem, UsageError
from crowline.rendezvous.limits import HubLimits
from crowline.server.config import (
    ANYWHERE,
    HUB_PORT,
    STUN_PORT,
    TLS_PORT,
    ServerConfig,
    TlsConfig,
    parse_endpoint,
    parse_host,
    parse_network,
    parse_ports,
    parse_size,
)
from crowline.server.turn_settings import turn_settings

MAX_MOTD = 1000
"""Characters; clients show 200."""

MAX_DRAIN = 86400.0
"""Seconds."""

MAX_WORKERS = 64
"""Processes: more than anybody's cores."""

MIN_HUB_RATE = 16 * 1024
"""Bytes a second; with less, one message of link zero takes more than four seconds."""

_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class Settings(msgspec.Struct, forbid_unknown_fields=True, rename="kebab"):
    """A configuration file: the flags without their dashes, and what has no flag."""

    listen: str | None = None
    stun_listen: str | None = None
    alternate_address: str | None = None
    public_address: str | None = None
    relay_ports: str | None = None
    allow_peer: tuple[str, ...] = ()
    trust_proxy: tuple[str, ...] = ()
    budget: str | int | None = None
    hub_rate: str | int | None = None
    hub_rate_total: str | int | None = None
    motd: str = ""
    origins: tuple[str, ...] = ()
    tls_listen: str | None = None
    cert: str | None = None
    key: str | None = None
    users: dict[str, str] = {}
    auth_secret: str | None = None
    realm: str | None = None
    allocations: int | None = None
    allocations_per_user: int | None = None
    allocations_per_source: int | None = None
    bytes_per_second: str | int | None = None
    binding_rate: int | None = None
    workers: int | None = None
    drain: float | None = None
    alternate_server: str | None = None
    claims_per_minute: int | None = None
    allocations_per_minute: int | None = None


def load(path: Path) -> Settings:
    """Read a TOML file. Raises `LocalProblem` if it cannot be read, `UsageError` if it makes no sense."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LocalProblem(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}.") from error
    return _settings(table, str(path))


def merge(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """`settings`, with what was given as flags in the place of what the file says."""
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    return msgspec.structs.replace(settings, **given)


def build(settings: Settings) -> ServerConfig:
    """Raises `UsageError` for what cannot be meant."""
    standard = ServerConfig()
    listen = parse_endpoint(settings.listen, HUB_PORT) if settings.listen else standard.listen
    stun = parse_endpoint(settings.stun_listen, STUN_PORT) if settings.stun_listen else standard.stun_listen
    networks = [parse_network(text) for text in settings.allow_peer]
    loopback = [network for network in networks if _is_loopback(network)]
    if loopback and not (_is_loopback_host(listen.host) and _is_loopback_host(stun.host)):
        raise UsageError(
            f"Relaying to {loopback[0]} would open this machine's own services to strangers.",
            hint="It is possible only while --listen and --stun-listen are loopback addresses too.",
        )
    return ServerConfig(
        listen=listen,
        stun_listen=stun,
        alternate_address=parse_host(settings.alternate_address) if settings.alternate_address else None,
        public_address=parse_host(settings.public_address) if settings.public_address else None,
        relay_ports=parse_ports(settings.relay_ports) if settings.relay_ports else standard.relay_ports,
        allow_peers=tuple(network for network in networks if network not in loopback),
        allow_loopback=bool(loopback),
        trusted_proxies=tuple(parse_network(text) for text in settings.trust_proxy),
        limits=_limits(settings),
        motd=settings.motd[:MAX_MOTD],
        origins=settings.origins,
        tls=_tls(settings),
        workers=_workers(settings.workers),
        drain=standard.drain if settings.drain is None else _drain(settings.drain),
        alternate_server=_other_server(settings.alternate_server),
        **turn_settings(settings),
    )


def _settings(table: Mapping[str, Any], name: str) -> Settings:
    try:
        return msgspec.convert(dict(table), Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}.", hint="`crowline serve --help` lists the settings.") from None


def _limits(settings: Settings) -> HubLimits:
    changed: dict[str, int] = {}
    if settings.budget is not None:
        changed["budget"] = parse_size(str(settings.budget))
    if settings.hub_rate is not None:
        changed["link_rate"] = _rate("hub-rate", settings.hub_rate)
    if settings.hub_rate_total is not None:
        if not changed.get("link_rate"):
            raise UsageError("hub-rate-total makes sense only beside hub-rate.")
        changed["link_rate_total"] = _rate("hub-rate-total", settings.hub_rate_total)
    for name in ("claims_per_minute", "allocations_per_minute"):
        value = getattr(settings, name)
        if value is None:
            continue
        if value < 1:
            raise UsageError(f"{name.replace('_', '-')} is at least 1.")
        changed[name] = value
    return HubLimits(**changed)  # type: ignore[arg-type]


def _tls(settings: Settings) -> TlsConfig | None:
    if settings.cert is None and settings.key is None and settings.tls_listen is None:
        return None
    if settings.cert is None or settings.key is None:
        raise UsageError("TLS needs both --cert and --key.")
    listen = parse_endpoint(settings.tls_listen or ANYWHERE, TLS_PORT)
    return TlsConfig(listen, Path(settings.cert), Path(settings.key))


def _other_server(text: str | None) -> Address | None:
    if text is None:
        return None
    address = parse_endpoint(text, STUN_PORT)
    if ipaddress.ip_address(address.host).is_unspecified or not address.port:
        raise UsageError(f"alternate-server: {text!r} is no address that clients could go to.")
    return address


def _workers(count: int | None) -> int:
    if count is not None and not 1 <= count <= MAX_WORKERS:
        raise UsageError(f"workers are from 1 to {MAX_WORKERS} processes.")
    return count or 1


def _drain(seconds: float) -> float:
    if not 0 <= seconds <= MAX_DRAIN:
        raise UsageError(f"drain is from 0 to {MAX_DRAIN:g} seconds.")
    return seconds


def _rate(name: str, value: str | int) -> int:
    rate = parse_size(str(value))
    if 0 < rate < MIN_HUB_RATE:
        raise UsageError(f"{name} is at least {MIN_HUB_RATE // 1024}K, or 0.")
    return rate


def _is_loopback(network: IPNetwork) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in _LOOPBACK)  # type: ignore[arg-type]


def _is_loopback_host(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback

"""No test asks the router of the machine that it runs on, nor speaks to a group of its network.

Where a test or a program that it started is inside a network namespace made for it, and on loopback, routers
are asked as ever.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

HOME_VARIABLE = "TESTS_HOME_NETWORK"
"""Tells programs that tests start which network is the machine's own."""

_NAMESPACE = Path("/proc/thread-self/ns/net")
_GUARD = Path(__file__).parent / "guard"


def _namespace() -> str:
    """The network that this thread is in; the same everywhere where there are no namespaces."""
    try:
        return str(_NAMESPACE.stat().st_ino)
    except OSError:
        return "0"


def is_at_home() -> bool:
    """Whether what is sent now leaves by this machine's own network."""
    return _namespace() == os.environ.get(HOME_VARIABLE)


def guard_programs() -> None:
    """Have programs that are started from here do as `set_up` says, unless they run in a namespace."""
    os.environ[HOME_VARIABLE] = _namespace()
    paths = [str(_GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def set_up(router: ModuleType) -> None:
    """Have this machine's own network show no router, and refuse to ask one. `router` is that module."""
    from crowline.net import gateway

    real_routes, real_bind = gateway._default_routes, router.RouterDriver._bind

    def routes() -> list[Any]:
        return [] if is_at_home() else real_routes()

    def bind(driver: Any) -> Any:
        host = driver.gateway.host
        is_loopback = host.startswith("127.") or host == "::1"
        assert is_loopback or not is_at_home(), f"a test asks a real router: {driver.gateway}"
        return real_bind(driver)

    gateway._default_routes = routes
    router.RouterDriver._bind = bind

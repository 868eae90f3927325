"""In programs that tests start, the guard of the tests' own process: see `no_real_router.py`.

Python imports this by itself where the folder is in PYTHONPATH. It loads nothing of the project: the guard is
put up when the program loads what asks routers.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_GUARDED = "crowline.net.router"


class _Guarded:
    """Finds that one module, and puts the guard up when it has been loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _GUARDED:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                import no_real_router

                no_real_router.set_up(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "TESTS_HOME_NETWORK" in os.environ:
    # Every program pays for what is loaded here, so that it is no pathlib.
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    sys.meta_path.insert(0, _Guarded())  # type: ignore[arg-type]

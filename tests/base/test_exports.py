"""What each protocol package offers to programs that use it alone."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["crowline.stun", "crowline.turn", "crowline.ice", "crowline.net"]
SOURCE = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package: str) -> None:
    """`__all__` is what type checkers see, and each name of it leads to something with a docstring."""
    module = importlib.import_module(package)
    tree = ast.parse((SOURCE / package.replace(".", "/") / "__init__.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(package)
        for alias in node.names
    }
    assert set(module.__all__) == imported
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{package}.{name} does not say what it is"


@pytest.mark.parametrize("package", PACKAGES)
def test_other_names_are_not(package: str) -> None:
    """A misspelt name is an error like that of any module."""
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_importing_the_packages_imports_nothing_slow() -> None:
    """The modules come with the first use of a name; QUIC and the PAKE are no part of any of them."""
    script = (
        "import sys\n"
        f"import {', '.join(PACKAGES)}\n"
        "slow = {'msgspec', 'asyncio', 'ipaddress', 'socket'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "import crowline\n"
        f"names = [getattr(p, n) for p in ({', '.join(PACKAGES)}) for n in p.__all__]\n"
        "foreign = {'qh3', 'spake2', 'websockets', 'cryptography', 'click', 'rich', 'starlette'}\n"
        "assert not foreign & set(sys.modules), foreign & set(sys.modules)\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('crowline.')}\n"
        # TCP has plans for its holes, and its frames know where a link may begin.
        "assert rooms == {'base', 'stun', 'turn', 'ice', 'net', 'punch', 'link'}, rooms\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr

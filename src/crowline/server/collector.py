"""How often Python looks for garbage that refers to itself, in a process that serves many clients."""

from __future__ import annotations

import gc

# Containers made and not freed before the next look. What an allocation keeps is about twenty: by default
# every thirty of them would cause a look, and be looked at again and again.
_YOUNG = 20_000
_OLDER = (10, 10)


def relax() -> None:
    """Look seldom, and never at what is there already: to be called once everything is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *_OLDER)

"""Which lines of one module an input reaches: `sys.monitoring` where there is one, `sys.settrace` before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Coverage:
    """Collects the lines reached in the files whose path contains `part`."""

    def __init__(self, part: str) -> None:
        self._part = part
        self.lines: set[tuple[str, int]] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Everything that runs inside is watched."""
        if sys.version_info >= (3, 12):
            yield from self._monitored()
            return
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._on_line if self._part in frame.f_code.co_filename else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._on_line

    if sys.version_info >= (3, 12):

        def _monitored(self) -> Iterator[None]:
            """Each line reports once and costs nothing afterwards."""
            monitoring = sys.monitoring
            tool = monitoring.PROFILER_ID
            monitoring.use_tool_id(tool, "fuzz")
            monitoring.register_callback(tool, monitoring.events.LINE, self._on_monitored_line)
            monitoring.set_events(tool, monitoring.events.LINE)
            try:
                yield
            finally:
                monitoring.set_events(tool, 0)
                monitoring.register_callback(tool, monitoring.events.LINE, None)
                monitoring.free_tool_id(tool)

        def _on_monitored_line(self, code: CodeType, line: int) -> Any:
            if self._part in code.co_filename:
                self.lines.add((code.co_filename, line))
            return sys.monitoring.DISABLE

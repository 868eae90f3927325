"""A running libnice agent (`nice_agent.py`) in the system's Python, which has its bindings."""

from __future__ import annotations

import asyncio
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from needs import missing

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("nice_agent.py")
PATIENCE = 45.0  # seconds until something must have happened
OWN_WORDS = ("nominated", "state", "data")


def needs_libnice() -> None:
    """The system's Python with gir1.2-nice-0.1 and python3-gi."""
    test = "import gi; gi.require_version('Nice', '0.1'); from gi.repository import Nice"
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", test], capture_output=True).returncode:
        missing("libnice's bindings (gir1.2-nice-0.1, python3-gi) are not installed")


class NiceProcess:
    """What it says of itself is in queues by its first word; other lines go to `tell`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: list[str] = []
        self._tell: Callable[[str], object] = self._lines.append
        self._said: defaultdict[str, asyncio.Queue[str]] = defaultdict(asyncio.Queue)

    def speak_to(self, tell: Callable[[str], object]) -> None:
        """Tell the other side everything that was said so far, and what comes."""
        self._tell = tell
        for line in self._lines:
            tell(line)

    def hear(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def said(self, word: str) -> str:
        """The rest of the next line that begins so."""
        async with asyncio.timeout(PATIENCE):
            return await self._said[word].get()

    async def until(self, line: str) -> None:
        """Wait for that very line."""
        word, _, rest = line.partition(" ")
        while await self.said(word) != rest:
            pass

    def send(self, data: bytes) -> None:
        self.hear(f"send {data.hex()}")

    async def data(self) -> bytes:
        return bytes.fromhex(await self.said("data"))

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode().rstrip("\n"):
            word, _, rest = line.partition(" ")
            if word in OWN_WORDS:
                self._said[word].put_nowait(rest)
            else:
                self._tell(line)


@asynccontextmanager
async def libnice(*, controlling: bool, **options: object) -> AsyncIterator[NiceProcess]:
    """On loopback; `options` are those of `nice_agent.py`."""
    needs_libnice()
    settings = {"address": "127.0.0.1", "controlling": int(controlling)} | options
    words = (f"{name.replace('_', '-')}={value}" for name, value in settings.items())
    process = await asyncio.create_subprocess_exec(
        PYTHON, str(SCRIPT), *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    theirs = NiceProcess(process)
    reading = asyncio.create_task(theirs.read())
    try:
        yield theirs
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading
        assert process.stdin is not None
        process.stdin.close()

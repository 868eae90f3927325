"""`docs/peers.md` tells the truth: its program runs, and its tables have every object of a chat."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import crowline
from crowline.cli import chat_lines
from crowline.cli.chat_screen import _HELP
from serving import serving

PAGE = (Path(__file__).parents[2] / "docs" / "peers.md").read_text(encoding="utf-8")
PATIENCE = 30.0  # seconds until something must have happened


async def test_the_program_on_the_page_says_hello() -> None:
    """And leaves when that is delivered."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "peers.md", "exec"), names)
    async with (
        asyncio.timeout(PATIENCE),
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        chat = crowline.Chat()
        running = asyncio.create_task(chat.run(there))
        await names["talk"](await room.peer())
        await running
        events = [event async for event in chat.events()]
    assert "hello" in {getattr(event, "text", "") for event in events}


def test_every_object_of_a_chat_is_on_the_page() -> None:
    """Those that a program gets, and those that it may send."""
    source = inspect.getsource(chat_lines.JsonVoice)
    types = re.findall(r'emit\("(\w+)"', source) + re.findall(r'"t": "(\w+)"', source)
    assert len(types) >= 12
    for each in types:
        assert f"`{each}`" in PAGE, each


def test_every_command_of_a_person_is_on_the_page() -> None:
    """As the help of a chat lists them."""
    for word in re.findall(r"(?<!/)/[a-z]+", _HELP):
        assert f"`{word}" in PAGE or word == "/text", word

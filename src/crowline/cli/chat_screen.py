"""A chat on a terminal: what is said scrolls by above the line that the person writes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

from crowline.api.chat import (
    Arrived,
    Chat,
    ChatEvent,
    Delivered,
    PeerTyping,
    Read,
    keyboard,
    pages,
)
from crowline.base.errors import UsageError
from crowline.cli.chat_lines import notice
from crowline.cli.line_editor import PASTE_OFF, PASTE_ON, Key, LineEditor, width
from crowline.cli.output import printable

# What stands before the line: how far the last message has come.
_NOTHING, _SENT, _DELIVERED, _READ = "  ", "· ", "✓ ", "✓✓"
_HELP = "/away [why]   /back   /quit   //text says /text   Alt-Enter: a new line   ✓ delivered   ✓✓ read"
_CLEAR_LINE = "\r\x1b[K"
# Columns that a terminal is taken to have at least.
_NARROWEST = 10


class Screen:
    """Takes the terminal: `close` gives it back. Standard input and error are one."""

    def __init__(self, chat: Chat, name: str) -> None:
        import termios
        import tty

        self._chat = chat
        self._name = name
        self._editor = LineEditor()
        self._last = self._delivered = self._read = 0
        self._is_peer_typing = False
        number = sys.stdin.fileno()
        self._before = termios.tcgetattr(number)
        # Keys come at once and are not shown by themselves; Ctrl-C is still a signal.
        tty.setcbreak(number, termios.TCSADRAIN)
        self._write(PASTE_ON)
        self._draw()

    def show(self, event: ChatEvent) -> None:
        if isinstance(event, Arrived):
            self.print(event.text, f"{self._name}: ")
            self._chat.saw(event.number)
        elif isinstance(event, Delivered):
            self._delivered = event.number
        elif isinstance(event, Read):
            self._read = event.number
        elif isinstance(event, PeerTyping):
            self._is_peer_typing = event.on
        elif text := notice(event, self._name):
            self.print(text)
        self._draw()

    def print(self, text: str, head: str = "  ") -> None:
        """Lines above the one that is being written."""
        self._write(f"{_CLEAR_LINE}{set_off(head, text, _columns())}\n")
        self._draw()

    async def listen(self) -> None:
        source = keyboard()
        try:
            while data := await source.read():
                for found in self._editor.feed(data):
                    if isinstance(found, Key) or not self._obey(found):
                        self._take_leave()
                        return
                if self._editor.text:
                    self._chat.typed()
                self._draw()
        finally:
            source.close()

    def close(self) -> None:
        import termios

        self._write(PASTE_OFF + _CLEAR_LINE)
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def _obey(self, text: str) -> bool:
        """Whether more may follow."""
        word, _, rest = text.partition(" ")
        if text.startswith("//") or not text.startswith("/") or "\n" in text:
            self._say(text.removeprefix("/") if text.startswith("//") else text)
        elif word == "/quit":
            return False
        elif word == "/away":
            self._chat.away(rest.strip())
            self.print("You are away.")
        elif word == "/back":
            self._chat.away(None)
            self.print("You are back.")
        else:
            self.print(_HELP)
        return True

    def _take_leave(self) -> None:
        if self._chat.undelivered:
            self.print("Leaving when the last message is delivered; Ctrl-C leaves now.")

    def _say(self, text: str) -> None:
        try:
            for page in pages(text):
                self._last = self._chat.say(page)
                self.print(page, "you: ")
        except UsageError as problem:
            self.print(f"{problem.message} {problem.hint}")

    def _draw(self) -> None:
        state = _NOTHING
        if self._last:
            state = _READ if self._read >= self._last else _DELIVERED
            state = state if self._delivered >= self._last else _SENT
        sign = "… " if self._is_peer_typing else ""
        prompt = f"{state} {sign}> "
        shown, column = self._editor.view(max(_columns() - len(prompt) - 1, 8))
        back = len(prompt) + column
        self._write(f"{_CLEAR_LINE}{prompt}{shown}\r\x1b[{back}C")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def set_off(head: str, text: str, columns: int) -> str:
    """`text` behind `head` as lines of a screen that is so wide: whatever the text holds, and however long it
    is, nothing of it comes to stand where a line begins, as if somebody else had said it.
    """
    columns = max(columns, _NARROWEST)
    taken = sum(map(width, head))
    margin = min(taken, columns // 2)
    lines = [piece for line in text.split("\n") for piece in _pieces(printable(line), columns - margin)]
    if taken > margin:
        lines.insert(0, "")
    return head + ("\n" + " " * margin).join(lines)


def _pieces(line: str, room: int) -> Iterator[str]:
    """Cut where a terminal that has `room` columns left would go on in its next line."""
    start = used = 0
    for end, char in enumerate(line):
        if used + width(char) > room:
            yield line[start:end]
            start, used = end, 0
        used += width(char)
    yield line[start:]


def _columns() -> int:
    return shutil.get_terminal_size().columns

"""A chat on a terminal: what is said scrolls by above the line that the person writes."""

from __future__ import annotations

import shutil
import sys

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
from crowline.cli.line_editor import PASTE_OFF, PASTE_ON, Key, LineEditor
from crowline.cli.output import printable

# What stands before the line: how far the last message has come.
_NOTHING, _SENT, _DELIVERED, _READ = "  ", "· ", "✓ ", "✓✓"
_HELP = "/away [why]   /back   /quit   //text says /text   Alt-Enter: a new line   ✓ delivered   ✓✓ read"
_CLEAR_LINE = "\r\x1b[K"


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
            self.print(transcript(self._name, event.text))
            self._chat.saw(event.number)
        elif isinstance(event, Delivered):
            self._delivered = event.number
        elif isinstance(event, Read):
            self._read = event.number
        elif isinstance(event, PeerTyping):
            self._is_peer_typing = event.on
        elif text := notice(event, self._name):
            self.print(f"  {printable(text)}")
        self._draw()

    def print(self, text: str) -> None:
        """Lines above the one that is being written."""
        self._write(f"{_CLEAR_LINE}{text}\n")
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
            self.print("  You are away.")
        elif word == "/back":
            self._chat.away(None)
            self.print("  You are back.")
        else:
            self.print(f"  {_HELP}")
        return True

    def _take_leave(self) -> None:
        if self._chat.undelivered:
            self.print("  Leaving when the last message is delivered; Ctrl-C leaves now.")

    def _say(self, text: str) -> None:
        try:
            for page in pages(text):
                self._last = self._chat.say(page)
                self.print(transcript("you", page))
        except UsageError as problem:
            self.print(f"  {problem.message} {problem.hint}")

    def _draw(self) -> None:
        state = _NOTHING
        if self._last:
            state = _READ if self._read >= self._last else _DELIVERED
            state = state if self._delivered >= self._last else _SENT
        sign = "… " if self._is_peer_typing else ""
        prompt = f"{state} {sign}> "
        shown, column = self._editor.view(max(shutil.get_terminal_size().columns - len(prompt) - 1, 8))
        back = len(prompt) + column
        self._write(f"{_CLEAR_LINE}{prompt}{shown}\r\x1b[{back}C")

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def transcript(name: str, text: str) -> str:
    """A message as lines of a screen: whatever it holds, it cannot look like somebody else's."""
    first, *others = text.split("\n")
    margin = " " * (len(name) + 2)
    return "\n".join([f"{name}: {printable(first)}", *(margin + printable(line) for line in others)])

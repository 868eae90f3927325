"""One line that a person writes on a terminal: keys come in as bytes, lines go out as text.

Enough of an editor for a chat: moving, deleting, what was written before, and pastes of many lines, which
terminals mark (bracketed paste) so that they stay one text.
"""

from __future__ import annotations

import codecs
import unicodedata
from enum import Enum, auto

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
"""What asks a terminal to mark pastes, and not to any more."""

# Characters of one text that are kept, and texts that the arrow keys bring back.
_MAX_TEXT = 1 << 20
_MAX_HISTORY = 100
# Characters of a control sequence that no terminal sends: a lone Escape followed by text, most likely.
_MAX_SEQUENCE = 16
_NEWLINE_SIGN = "⏎"


class Key(Enum):
    """What a person wants, beside a text."""

    END = auto()
    """Ctrl-D where nothing is written."""


class LineEditor:
    """`feed` takes bytes as a terminal sends them that does not wait for lines; `view` is what to show."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text: list[str] = []
        self._cursor = 0
        self._sequence = ""
        self._is_pasting = False
        self._history: list[str] = []
        self._recalled: int | None = None

    @property
    def text(self) -> str:
        return "".join(self._text)

    def feed(self, data: bytes) -> list[str | Key]:
        """The texts that were finished with Enter, and keys, in order."""
        found: list[str | Key] = []
        for char in self._decoder.decode(data):
            if (result := self._take(char)) is not None:
                found.append(result)
        return found

    def view(self, room: int) -> tuple[str, int]:
        """What fits into `room` columns around the cursor, and the cursor's column in it."""
        shown = [_shown(char) for char in self._text]
        start = self._cursor
        columns = 0
        while start > 0 and columns + width(shown[start - 1]) < room:
            start -= 1
            columns += width(shown[start])
        end, used = self._cursor, columns
        while end < len(shown) and used + width(shown[end]) < room:
            used += width(shown[end])
            end += 1
        return "".join(shown[start:end]), columns

    def _take(self, char: str) -> str | Key | None:
        if self._sequence:
            return self._take_sequence(char)
        if char == "\x1b":
            self._sequence = char
            return None
        if self._is_pasting:
            self._insert("\n" if char == "\r" else char)
            return None
        return self._take_key(char)

    def _take_sequence(self, char: str) -> str | Key | None:
        self._sequence += char
        if self._sequence in ("\x1b[", "\x1bO"):
            return None
        if self._sequence in ("\x1b\r", "\x1b\n"):
            # Alt and Enter: a line of the same text.
            self._insert("\n")
        elif self._sequence[1] in "[O":
            if not ("@" <= char <= "~") and len(self._sequence) < _MAX_SEQUENCE:
                return None
            self._obey(self._sequence[2:])
        self._sequence = ""
        return None

    def _obey(self, sequence: str) -> None:
        if sequence == "200~":
            self._is_pasting = True
        elif sequence == "201~":
            self._is_pasting = False
        elif self._is_pasting:
            return
        elif sequence in ("D", "C"):
            step = -1 if sequence == "D" else 1
            self._cursor = min(max(self._cursor + step, 0), len(self._text))
        elif sequence in ("A", "B"):
            self._recall(-1 if sequence == "A" else 1)
        elif sequence in ("H", "1~", "7~"):
            self._cursor = 0
        elif sequence in ("F", "4~", "8~"):
            self._cursor = len(self._text)
        elif sequence == "3~":
            del self._text[self._cursor : self._cursor + 1]

    def _take_key(self, char: str) -> str | Key | None:
        if char in ("\r", "\n"):
            return self._finish()
        if char == "\x04":
            if not self._text:
                return Key.END
            del self._text[self._cursor : self._cursor + 1]
        elif char in ("\x7f", "\x08"):
            self._delete_back(max(self._cursor - 1, 0))
        elif char == "\x17":
            self._delete_back(self._word_start())
        elif char == "\x15":
            self._delete_back(0)
        elif char == "\x0b":
            del self._text[self._cursor :]
        elif char == "\x01":
            self._cursor = 0
        elif char == "\x05":
            self._cursor = len(self._text)
        elif char.isprintable() or char == "\t":
            self._insert(char)
        return None

    def _insert(self, char: str) -> None:
        if len(self._text) < _MAX_TEXT:
            self._text.insert(self._cursor, char)
            self._cursor += 1

    def _delete_back(self, start: int) -> None:
        del self._text[start : self._cursor]
        self._cursor = start

    def _word_start(self) -> int:
        start = self._cursor
        while start and self._text[start - 1].isspace():
            start -= 1
        while start and not self._text[start - 1].isspace():
            start -= 1
        return start

    def _finish(self) -> str | None:
        text = self.text
        self._replace("")
        self._recalled = None
        if not text.strip():
            return None
        self._history = [*self._history, text][-_MAX_HISTORY:]
        return text

    def _recall(self, step: int) -> None:
        """Another text of those written before; after the last one, an empty line."""
        position = len(self._history) if self._recalled is None else self._recalled
        position = min(max(position + step, 0), len(self._history))
        if position == self._recalled or (self._recalled is None and position == len(self._history)):
            return
        self._recalled = position if position < len(self._history) else None
        self._replace("" if self._recalled is None else self._history[position])

    def _replace(self, text: str) -> None:
        self._text = list(text)
        self._cursor = len(self._text)


def _shown(char: str) -> str:
    if char == "\n":
        return _NEWLINE_SIGN
    return char if char.isprintable() else " " if char == "\t" else "�"


def width(char: str) -> int:
    """Columns of a terminal that it takes (Unicode Standard Annex #11)."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1

"""What a peer-supplied name may be, by the rules of every operating system at once.

A path on the wire is components joined by ``/``. A component is accepted only if it is one plain name on
Linux, macOS and Windows alike, so that what is safe does not depend on who receives. A sender makes its own
names fit with `portable` before it offers them; a receiver accepts or refuses, and never repairs.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from crowline.base.errors import MalformedMessage

MAX_COMPONENT_BYTES = 255
"""UTF-8 bytes of one name: NAME_MAX of ext4, XFS and APFS, and never more than NTFS's 255 UTF-16 units."""

MAX_DEPTH = 32
"""Components of one path: deeper than real trees are, and shallow enough to walk one descriptor at a time."""

MAX_PATH_BYTES = 4096
"""UTF-8 bytes of one path: PATH_MAX of Linux, so that what arrives can be named by other programs."""

MAX_SHOWN = 300
"""Characters of a peer's text that are shown to a person: more would push their own lines off the screen."""

_WINDOWS_FORBIDDEN = '<>:"|?*'
_SEPARATORS = "/\\"

# Windows converts these to a slash or backslash when a program uses its 8-bit calls ("best fit").
_SEPARATOR_LOOKALIKES = "\u2044\u2215\u2216\uff0f\uff3c\ufe68"

# They reorder the text around them, so that "exe.txt" can be shown for "txt.exe".
_BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

_UNSAFE_CHARACTER = re.compile(
    # C0, DEL and C1 controls; line and paragraph separators; the invisible byte-order mark; lone surrogates.
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff"
    + re.escape(_WINDOWS_FORBIDDEN + _SEPARATORS + _SEPARATOR_LOOKALIKES + _BIDI_CONTROLS)
    + "]"
)

_UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b\u2028\u2029\ufeff\ud800-\udfff\U000e0000-\U000e007f" + _BIDI_CONTROLS + "]"
)

# Windows opens the device whatever the folder and the extension; superscript digits count as digits.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\.|\Z)", re.IGNORECASE
)

# Of files and folders that are being received: see `private_name`.
_PRIVATE = re.compile(r"\.crowline-[0-9a-f]+\.part", re.IGNORECASE)

# Read or run by a shell or a desktop without being asked for, beside everything that begins with a dot.
_RUN_UNASKED = frozenset({"desktop.ini", "autorun.inf", "folder.htt"})


class UnsafeName(MalformedMessage):
    """The other side offered a name that is not safe to write."""


def split_path(path: str) -> tuple[str, ...]:
    """The components of a peer's relative path, each of them one safe name. Raises `UnsafeName`."""
    if _encoded_length(path) > MAX_PATH_BYTES:
        raise _unsafe(path, f"is longer than {MAX_PATH_BYTES} bytes")
    components = tuple(path.split("/"))
    if len(components) > MAX_DEPTH:
        raise _unsafe(path, f"is nested deeper than {MAX_DEPTH} folders")
    for component in components:
        check_component(component)
    return components


def check_component(name: str) -> None:
    """Raise `UnsafeName` unless `name` is one plain file or folder name on every system."""
    objection = _objection(name)
    if objection:
        raise _unsafe(name, objection)


def check_target(path: str, target: str) -> None:
    """Raise `UnsafeName` unless the symbolic link `path`, whose parents are real folders, may point to
    `target`: by some ``..`` and then plain names to a place in the same top-level folder.

    As ``..`` comes first only, it counts from the link's own real folder; and as every link of an offer keeps
    to this, none leads out by way of another.
    """
    if _encoded_length(target) > MAX_PATH_BYTES:
        raise _unsafe(path, f"is a link to more than {MAX_PATH_BYTES} bytes")
    depth = path.count("/")
    parts = target.split("/")
    while parts and parts[0] == "..":
        depth -= 1
        del parts[0]
    if depth < 1:
        raise _unsafe(path, "is a link that leads out of its folder")
    for part in parts:
        check_component(part)


def private_name(path: str) -> str:
    """What the file or folder of this path is called while it is being received.

    It depends on the path only, so that a later transfer finds what is there.
    """
    return f".crowline-{hashlib.sha256(path.encode()).hexdigest()[:16]}.part"


def is_private(name: str) -> bool:
    """Whether a file or folder of this name is an unfinished one of ours."""
    return _PRIVATE.fullmatch(name) is not None


def twin_key(path: str) -> str:
    """Equal for two paths that some file system takes for one: case and Unicode normal form do not count."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def portable(name: str) -> str:
    """The nearest name to `name`, a local file's, that `check_component` accepts."""
    name = _UNSAFE_CHARACTER.sub("_", name)
    if _DEVICE.match(name) or _PRIVATE.fullmatch(name):
        name = "_" + name
    name = _clip(name, MAX_COMPONENT_BYTES)
    stem = name.rstrip(". ")
    if not name or stem != name:
        return stem + "_"
    return name


def numbered(name: str, number: int, *, folder: bool = False) -> str:
    """`name (1).ext`: the name to try when `name` is taken, never longer than a component may be."""
    stem, dot, extension = (name, "", "") if folder else name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    if len(extension) > 16 or " " in extension:
        stem, dot, extension = name, "", ""
    return _with_tail(stem, f" ({number}){dot}{extension}")


def incomplete(name: str) -> str:
    """`name (incomplete)`: what a folder is called of which not everything came."""
    return _with_tail(name, " (incomplete)")


def acts_unasked(name: str) -> bool:
    """Whether a file or folder of this name, put into somebody's folder, may be obeyed or run unasked."""
    return name.startswith(".") or name.lower() in _RUN_UNASKED


def display_name(text: str) -> str:
    """`text` as one line that is safe on a terminal: nothing invisible, nothing that moves other text."""
    clipped = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    return _UNSHOWABLE.sub(_escape, clipped)


def _objection(name: str) -> str | None:
    if not name:
        return "has an empty part"
    if name in (".", ".."):
        return "points to another folder"
    unsafe = _UNSAFE_CHARACTER.search(name)
    if unsafe:
        return f"contains U+{ord(unsafe.group()):04X}, which is not safe on every system"
    if name[-1] in ". ":
        return "ends in a dot or a space"
    if _DEVICE.match(name):
        return "is the name of a device"
    if _PRIVATE.fullmatch(name):
        return "is a name of unfinished files"
    if _encoded_length(name) > MAX_COMPONENT_BYTES:
        return f"has a part longer than {MAX_COMPONENT_BYTES} bytes"
    return None


def _unsafe(name: str, objection: str) -> UnsafeName:
    return UnsafeName(f"The name {display_name(name)!r} was refused: it {objection}.")


def _encoded_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _with_tail(stem: str, tail: str) -> str:
    return _clip(stem, MAX_COMPONENT_BYTES - _encoded_length(tail)) + tail


def _clip(text: str, limit: int) -> str:
    """At most `limit` UTF-8 bytes from the front of `text`, never half a character."""
    return text.encode()[:limit].decode("utf-8", "ignore")


def _escape(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"

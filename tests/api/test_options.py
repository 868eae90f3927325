"""Where the server's name comes from, and what is said where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from crowline.api import options
from crowline.api.options import SERVER_VARIABLE, default_server
from crowline.base.errors import ServerUnreachable, UsageError


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file, which is not there yet; the environment says nothing."""
    path = tmp_path / "config.toml"
    monkeypatch.setattr(options, "config_file", lambda: path)
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)
    return path


def test_the_environment_comes_before_the_config_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each names a server; the file counts where the environment is silent."""
    config.write_text('server = "wss://file.example"')
    assert default_server() == "wss://file.example"
    monkeypatch.setenv(SERVER_VARIABLE, "wss://environment.example")
    assert default_server() == "wss://environment.example"


@pytest.mark.parametrize("text", [None, "", "server = 7", "other = 1"])
def test_without_a_name_there_is_no_server(config: Path, text: str | None) -> None:
    """No file, or one that names none."""
    if text is not None:
        config.write_text(text)
    with pytest.raises(ServerUnreachable, match="No server is named"):
        default_server()


@pytest.mark.parametrize(
    "content",
    [b"server =", b"\xff", b"server = " + b"[" * 10_000, b"port = " + b"9" * 5000],
    ids=["cut off", "no text", "too deep", "too long a number"],
)
def test_a_config_file_that_cannot_be_read_is_named(config: Path, content: bytes) -> None:
    """A sentence, whatever is wrong with it."""
    config.write_bytes(content)
    with pytest.raises(UsageError, match=r"config\.toml cannot be read"):
        default_server()

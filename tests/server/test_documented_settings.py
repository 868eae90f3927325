"""The page for self-hosters says what the server understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crowline.cli.serve import serve
from crowline.server.settings import Settings, build, load

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
FILES = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", FILES)
def test_the_files_of_the_page_are_taken(text: str, tmp_path: Path) -> None:
    """As they stand there."""
    file = tmp_path / "crowline.toml"
    file.write_text(text)
    build(load(file))


def test_the_flags_of_the_page_exist() -> None:
    """Every one that is named is a flag of `crowline serve`; the keys of the tables are settings."""
    flags = {name for parameter in serve.params for name in parameter.opts}
    lines = [line for line in PAGE.splitlines() if "turnutils" not in line and "openssl" not in line]
    assert set(re.findall(r"--[a-z][a-z-]+", "\n".join(lines))) <= flags | {"--help"}
    keys = set(re.findall(r"^([a-z-]+) = ", "\n".join(FILES), re.MULTILINE))
    assert keys <= {name.replace("_", "-") for name in Settings.__struct_fields__} | {"alice"}

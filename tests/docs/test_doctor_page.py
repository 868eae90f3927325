"""The page about the doctor names everything that the doctor says to programs."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import crowline
from crowline.api.doctor import examination as doctor
from crowline.diagnosis import fixes
from crowline.diagnosis.diagnosis import diagnose
from crowline.diagnosis.report import to_fields
from crowline.diagnosis.verdict import Verdict
from diagnosed_places import facts_of

PAGE = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()


def keys_of_fixes() -> set[str]:
    """The first argument of every remedy in the source."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(fixes))) if isinstance(node, ast.Call)]
    remedies = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_Remedy"]
    return {call.args[0].value for call in remedies if isinstance(call.args[0], ast.Constant)}


def test_every_field_is_on_the_page() -> None:
    """By its name."""
    facts = facts_of("ipv6-home")
    fields = to_fields(facts, diagnose(facts), 1.0)
    for name in (*fields, *fields["server"], *fields["ipv4"], *fields["ipv4"]["nat"], *fields["mtu"]):
        assert f"`{name}`" in PAGE or name == "schema", name


def test_every_fix_and_every_verdict_is_on_the_page() -> None:
    """Their keys and codes are what scripts rely on."""
    keys = keys_of_fixes()
    assert "router-mapping" in keys
    for key in (*keys, *(verdict.value for verdict in Verdict)):
        assert f"`{key}`" in PAGE, key
    for verdict in Verdict:
        assert f"| {verdict.exit_code} | `{verdict.value}` |" in PAGE


def test_the_call_that_the_page_names_is_there() -> None:
    """In the public API."""
    assert "crowline.examine()" in PAGE
    assert crowline.examine is doctor.examine
    assert crowline.Examination is doctor.Examination

"""docs/troubleshooting.md quotes messages as the code has them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ANYTHING = "…"  # what a message fills in

# First cells that begin with a message in code marks; those that begin with words tell a symptom.
QUOTED = re.findall(r"^\| `([^`]+)`", PAGE, re.MULTILINE)


@cache
def messages() -> str:
    """Every text of the code, what it fills in as the page writes it, a line each."""
    found = []
    for part in ("client", "training", "tools"):
        for path in sorted((ROOT / part).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (text := text_of(node)) is not None:
                    found.append(text.replace("\n", " ").replace("`", ""))
    return "\n".join(found)


def text_of(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or ANYTHING for part in node.values)
    return None


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_is_one_of_the_code_s(quoted: str) -> None:
    pattern = ".*".join(re.escape(part.strip()) for part in quoted.split(ANYTHING))
    assert re.search(pattern, messages()), quoted


def test_every_row_says_why_and_what_to_do() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(QUOTED) > 40
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 3, row
        assert all(cells), row

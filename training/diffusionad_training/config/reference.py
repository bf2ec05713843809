"""Every setting with its meaning and its value in each preset, for docs/settings.md.

    python -m diffusionad_training.config.reference docs/settings.md

The meaning is the comment that stands beside the setting where it is defined.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from diffusionad_training.config import Config
from diffusionad_training.config.presets import EDGE, EDGE_ON_TEXTURES, PAPER, STANDARD
from diffusionad_training.config.settings import HALVES, values

_INTRODUCTION = """\
# Settings

Every setting that `train --set SETTING=VALUE` takes, with its value in each preset. It is written
by `python -m diffusionad_training.config.reference docs/settings.md` from the presets themselves;
[method.md](method.md) says why they differ. An empty cell means as in `paper`, and on a
texture as in `edge`.
"""


def page() -> str:
    """Render the whole page, in Markdown."""
    columns = [values(config) for config in (PAPER, STANDARD, EDGE, EDGE_ON_TEXTURES)]
    parts = [_INTRODUCTION]
    for section, rows in _sections():
        parts.append(f"## {section}\n")
        parts.append("| setting | `paper` | `standard` | `edge` | `edge` on a texture | meaning |")
        parts.append("| --- | --- | --- | --- | --- | --- |")
        parts += [_row(path, meaning, columns) for path, meaning in rows]
        parts.append("")
    return "\n".join(parts)


def meanings(kind: type[Any]) -> dict[str, str]:
    """The comment of each setting of a config class, by the setting's name."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    told: dict[str, str] = {}
    for node in definition.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.append(line.strip().removeprefix("#").strip())
        _, _, beside = lines[(node.end_lineno or node.lineno) - 1].partition("  # ")
        told[node.target.id] = beside.strip() or " ".join(reversed(above))
    return told


def _sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every section's title, and the paths and meanings of its settings."""
    for half in HALVES:
        kind = get_type_hints(Config)[half]
        hints = get_type_hints(kind)
        nested = [name for name in hints if dataclasses.is_dataclass(hints[name])]
        own = [(name, text) for name, text in meanings(kind).items() if name not in nested]
        if own:
            yield f"The {half} itself", own
        for name in nested:
            told = meanings(hints[name])
            yield f"`{name}`", [(f"{name}.{setting}", text) for setting, text in told.items()]


def _row(path: str, meaning: str, columns: list[dict[str, Any]]) -> str:
    paper, standard, edge, texture = (_shown(column[path]) for column in columns)
    cells = [
        f"`{path}`",
        paper,
        "" if standard == paper else standard,
        "" if edge == paper else edge,
        "" if texture == edge else texture,
        meaning.replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |"


def _shown(value: object) -> str:
    if isinstance(value, bool | str):
        return f"`{value}`" if isinstance(value, str) else json.dumps(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"({', '.join(_shown(one) for one in value)})"
    return json.dumps(value)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")

"""What the site has beside the pages of docs/, for MkDocs (`hooks` in mkdocs.yml).

Pages from outside docs/ (README is the first one), files that a page links to,
and the reference: `--help` of every command, the docstrings of every public
name of the client. Links are written for the repository; here they are led to
where the site has the same thing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

# Pages of the repository that lie outside docs/, by their place in the site.
OUTSIDE = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples/README.md",
}
COMMANDS, CLASSES = "reference/commands.md", "reference/client.md"
GENERATED = (*OUTSIDE.values(), COMMANDS, CLASSES)

_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s#]*)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".mjs": "js", ".cs": "csharp", ".cpp": "cpp", ".yaml": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File

    def add(place: str, text: str) -> None:
        files.append(File.generated(config, place, content=text))

    for source, place in OUTSIDE.items():
        add(place, (ROOT / source).read_text(encoding="utf-8"))
    for source in sorted(linked_sources()):
        add(f"source/{source}.md", source_page(source))
    add(COMMANDS, commands_page())
    add(CLASSES, classes_page())
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead the links of a page to places of the site."""
    return relinked(markdown, page.file.src_uri)


def relinked(markdown: str, place: str) -> str:
    """Rewrite the links of the page that the site has at `place`; code stays as it is.

    What the site does not have, such as a folder, becomes its text.
    """
    origin = origin_of(place)

    def lead(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        if not target or ":" in target:
            return match[0]
        found = place_of(posixpath.normpath(posixpath.join(posixpath.dirname(origin), target)))
        if found is None:
            return text.strip("![]")
        return f"{text}({posixpath.relpath(found, posixpath.dirname(place) or '.')}{anchor})"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(lead, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(lead, markdown[end:])])


def origin_of(place: str) -> str:
    """The file in the repository that the site has at `place`."""
    return next((name for name, page in OUTSIDE.items() if page == place), f"docs/{place}")


def place_of(file: str) -> str | None:
    """Where the site has a file or folder of the repository; None if it has it nowhere."""
    if file in OUTSIDE:
        return OUTSIDE[file]
    if file.startswith("docs/"):
        return file.removeprefix("docs/")
    if (ROOT / file).is_dir():
        return OUTSIDE.get(f"{file}/README.md")
    return f"source/{file}.md"


def linked_sources() -> set[str]:
    """Files that a page links to, and that the site has as pages of their own."""
    pages = [
        *OUTSIDE,
        *(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")),
    ]
    found = set()
    for page in pages:
        for target in _targets((ROOT / page).read_text(encoding="utf-8")):
            file = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
            place = place_of(file)
            if place is not None and place.startswith("source/"):
                found.add(file)
    return found


def _targets(markdown: str) -> Iterator[str]:
    for match in _LINK.finditer(_FENCE.sub("", markdown)):
        if match[2] and ":" not in match[2]:
            yield match[2]


def source_page(file: str) -> str:
    """A file of the repository as a page."""
    language = _LANGUAGES.get(Path(file).suffix, "text")
    return f"# {file}\n\n````{language}\n{(ROOT / file).read_text(encoding='utf-8')}\n````\n"


def commands_page() -> str:
    """The reference of the command line: what `--help` prints of every command."""
    import click
    from click.testing import CliRunner

    from diffusionad_client.cli import main

    parts = ["# Commands\n\nWhat `--help` prints, of every command.\n"]

    def describe(command: click.Command, *names: str) -> None:
        printed = CliRunner().invoke(main, [*names, "--help"], prog_name="diffusionad").output
        parts.append(f"## {' '.join(('diffusionad', *names))}\n\n```text\n{printed}```\n")
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                describe(below, *names, name)

    describe(main)
    return "\n".join(parts)


def classes_page() -> str:
    """The reference of the client: each public name, for mkdocstrings to fill in."""
    import diffusionad_client
    from diffusionad_client import DiffusionADError, testing

    errors = [
        name
        for name in diffusionad_client.__all__
        if issubclass(getattr(diffusionad_client, name), DiffusionADError)
    ]
    sections = {
        "Classes": [
            f"diffusionad_client.{name}"
            for name in diffusionad_client.__all__
            if name not in errors
        ],
        "Errors": [f"diffusionad_client.{name}" for name in errors],
        "For tests": [f"diffusionad_client.testing.{name}" for name in testing.__all__],
    }
    parts = [
        "# Classes of the client\n\nMade from the docstrings. [The client library](../client.md) "
        "says how they belong together.\n"
    ]
    for title, names in sections.items():
        parts.append(f"## {title}\n")
        parts += [f"::: {name}\n    options:\n      heading_level: 3\n" for name in names]
    return "\n".join(parts)

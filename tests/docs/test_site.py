"""The site has every page, each at one place, and its links lead to where they should."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


class _Settings(yaml.SafeLoader):
    """Reads mkdocs.yml without the packages that its tags name."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return dict(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Settings))


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def places(nav: list[dict[str, Any]]) -> list[str]:
    found = []
    for entry in nav:
        for value in entry.values():
            found += [value] if isinstance(value, str) else places(value)
    return found


def test_every_page_has_one_place_in_the_navigation(
    settings: dict[str, Any], hooks: ModuleType
) -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} | {"decisions/README.md"}
    listed = places(settings["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == pages | set(hooks.GENERATED)


@pytest.mark.parametrize(
    ("place", "link", "led_to"),
    [
        ("index.md", "[Data](docs/data.md#masks)", "[Data](data.md#masks)"),
        ("index.md", "![Demo](docs/images/demo.jpg)", "![Demo](images/demo.jpg)"),
        ("data.md", "[why](decisions/0001-x.md)", "[why](decisions/0001-x.md)"),
        ("data.md", "[all](../SECURITY.md)", "[all](security.md)"),
        ("decisions/0001-x.md", "[all](../../README.md)", "[all](../index.md)"),
        ("client.md", "[`examples/`](../examples)", "[`examples/`](examples/README.md)"),
        ("deploy.md", "[it](../Makefile)", "[it](source/Makefile.md)"),
        ("index.md", "[`client/`](client)", "`client/`"),
        ("data.md", "[paper](https://arxiv.org/abs/2303.08730)", None),
        ("data.md", "[below](#masks)", None),
        ("index.md", "```sh\n[Data](docs/data.md)\n```", None),
    ],
)
def test_links_of_the_repository_lead_to_places_of_the_site(
    hooks: ModuleType, place: str, link: str, led_to: str | None
) -> None:
    assert hooks.relinked(f"See\n{link}\n", place) == f"See\n{led_to or link}\n"


def test_the_reference_has_the_help_of_every_command(hooks: ModuleType) -> None:
    page = hooks.commands_page()
    for command in ("diffusionad", "diffusionad score", "diffusionad release promote"):
        assert f"## {command}\n" in page
        assert f"Usage: {command} [OPTIONS]" in page

"""docs/client.md names what is public, and nothing else."""

import re
from pathlib import Path

import diffusionad_client
from diffusionad_client import DiffusionADError, testing

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
WORDS = set(re.findall(r"\b[A-Z][A-Za-z]+\b", " ".join(re.findall(r"`[^`\n]+`", PAGE))))


def test_every_public_name_is_on_the_page() -> None:
    assert {*diffusionad_client.__all__, *testing.__all__} <= WORDS


def test_the_last_section_lists_every_name_that_is_no_error() -> None:
    section = PAGE[PAGE.index("## Every name") :]
    listed = set(re.findall(r"`([A-Z]\w+)`", section))
    public = {
        name
        for name in diffusionad_client.__all__
        if not issubclass(getattr(diffusionad_client, name), DiffusionADError)
    }
    assert listed == {*public, *testing.__all__, "DiffusionADError"}


def test_every_method_of_a_client_is_on_the_page() -> None:
    methods = {name for name in vars(diffusionad_client.Client) if not name.startswith("_")}
    assert methods - {"close", "served"} <= set(re.findall(r"\w+", PAGE))

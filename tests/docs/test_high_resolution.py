"""The program of docs/high-resolution.md does what the page says of it."""

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusionad_client import Client, Verdict
from diffusionad_client.testing import FakeCategory, FakeServer

PAGE = Path(__file__).parents[2] / "docs" / "high-resolution.md"


@pytest.mark.parametrize(("right", "verdict"), [(0.1, Verdict.OK), (0.9, Verdict.NG)])
def test_a_part_is_as_bad_as_its_worst_window(
    right: float, verdict: Verdict, tmp_path: Path
) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    program: dict[str, Any] = {}
    exec(found[1], program)
    Image.new("RGB", (2448, 1224)).save(tmp_path / "part.png")
    windows = [FakeCategory("plate_left", 0.1), FakeCategory("plate_right", right)]
    with FakeServer(*windows) as server, Client(server.url) as client:
        assert program["inspect"](client, str(tmp_path / "part.png")) is verdict

"""What the pages share: how a template is filled in, their style and the pictures inside them."""

from __future__ import annotations

import base64
import importlib.util
from pathlib import Path
from typing import Any

from PIL import Image

from diffusionad_client import images
from diffusionad_client.distributions import install_hint
from diffusionad_client.errors import DeadlineExceededError, ImageError, ReportError
from diffusionad_client.pages import pictures

THUMBNAIL = 280  # pixels of the longest side: three a card, sharp on a dense screen

_READ_S = 5.0  # for a picture; a drive that is gone must not hold a page for ever
_SHARED = Path(__file__).parent  # the style, and drawings that pages include


def check_can_render() -> None:
    """Raise `ReportError` if jinja2 is missing, before any work is done."""
    if importlib.util.find_spec("jinja2") is None:
        raise ReportError(
            "the report needs jinja2, which is missing here; score with --no-report, or "
            + install_hint("diffusionad-client")
        )


def render(template: str, *, templates: Path, **context: Any) -> str:
    """Fill in a template of the folder `templates`; it may include those of this one."""
    import jinja2  # takes its time: only here

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _SHARED]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**context)


def open_picture(folder: Path, name: str | None) -> Image.Image | None:
    """Open a picture; None if it cannot be read now, which a page then says in its place."""
    if name is None:
        return None
    try:
        return Image.fromarray(images.load(folder / name, timeout=_READ_S))
    except (ImageError, DeadlineExceededError):
        return None


def thumbnail(picture: Image.Image | None) -> str | None:
    """Make a small copy as a data URI."""
    if picture is None:
        return None
    factor = THUMBNAIL / max(picture.size)
    if factor < 1:
        width, height = (max(round(side * factor), 1) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    encoded = base64.b64encode(pictures.jpeg(picture, quality=80)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"

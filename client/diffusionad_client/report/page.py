"""From a folder of results to report.html."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from diffusionad_client import __version__
from diffusionad_client.drift.compare import compare, rates_of
from diffusionad_client.drift.meaning import Asked
from diffusionad_client.files import write_aside
from diffusionad_client.pages.rendering import check_can_render, render
from diffusionad_client.report import document, embedding
from diffusionad_client.scoring.gathered import VERDICTS, gather
from diffusionad_client.scoring.results import REPORT_HTML, read_rows, read_summary

_ROOM = Path(__file__).parent
_TEMPLATE = "page.html.j2"
_MOST_GROUPS = 25  # of a field, in the table of drift
# In the order in which they build on each other; the page holds them as one.
_SCRIPTS = (
    "run", "elements", "histogram", "yields", "table", "pictures", "gallery", "viewer", "main",
)  # fmt: skip


def write_report(
    output: Path,
    *,
    image_root: Path | None = None,
    embed: bool = False,
    baseline: Path | None = None,
    asked: Asked | None = None,
) -> Path:
    """Write OUTPUT/report.html from the results in OUTPUT; returns its path.

    The images are looked for where they were scored, or below `image_root`. The
    page reads pictures from where they lie; with `embed` it holds those of a
    bounded choice of images, and can be sent alone. With `baseline`, the results
    of an earlier run, it tells the drift from them; `asked` are the rates that
    the thresholds were calibrated to, if the results do not say so. Raises
    `ReportError` or `OutputError`.
    """
    check_can_render()
    summary = read_summary(output)
    run = gather(read_rows(output))
    root = _local(summary.root) if image_root is None else image_root
    data, embedded, drift, earlier = "null", "{}", None, None
    if baseline is not None:
        before = gather(read_rows(baseline))
        drift = compare(before, run, asked=asked, calibrated_to=rates_of(output))
        earlier = before.finite()
    if run.names:
        images = None if root is None else embedding.address(root, output)
        data = document.as_script(document.document(run, images=images, baseline=earlier))
        made = embedding.embed(run, output, root, everything=embed)
        embedded = document.as_script(made)
    script = _script()
    page = render(
        _TEMPLATE,
        templates=_ROOM,
        summary=summary,
        counts=run.counts,
        scored=len(run.names),
        failures=run.failures,
        failed=run.failed,
        releases=run.releases.most_common(),
        rois=sorted({release.roi for release in run.releases if release.roi}),
        constants=run.constants,
        drift=drift,
        baseline=baseline,
        most_groups=_MOST_GROUPS,
        verdicts=VERDICTS,
        max_named=document.MAX_NAMED,
        data=data,
        embedded=embedded,
        script=script,
        script_digest=_digest(script),
        version=__version__,
    )
    path = output / REPORT_HTML
    write_aside(path, page.encode("utf-8", "xmlcharrefreplace"))
    return path


def _local(root: str) -> Path | None:
    """Give the folder of the images; None where they are in a bucket or the like."""
    return None if "://" in root else Path(root)


def _script() -> str:
    parts = (_ROOM / "scripts" / f"{name}.js" for name in _SCRIPTS)
    text = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    return f'(() => {{\n"use strict";\n{text}}})();'


def _digest(script: str) -> str:
    """Give the digest by which the page lets this script run, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")

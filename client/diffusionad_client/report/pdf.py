"""The page as a PDF, printed by the Chromium of this computer; none is ever downloaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from diffusionad_client.errors import ReportError
from diffusionad_client.files import PART, output_errors, publish

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")

_PRINT_S = 120.0  # for one page, with its pictures
_PICTURES_MS = 20_000  # that the page may take to load them, in its own time


def find_browser() -> str:
    """Give the path of a browser that prints. Raises `ReportError`."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise ReportError(
        f"no browser to print with: none of {', '.join(BROWSERS)} is in PATH; install Chromium "
        "(Debian: apt install chromium), or open report.html in any browser and print it there"
    )


def print_page(page: Path, pdf: Path) -> None:
    """Print a page of ours to a PDF. Raises `ReportError` or `OutputError`."""
    browser = find_browser()
    part = pdf.with_name(pdf.name + PART)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            f"--virtual-time-budget={_PICTURES_MS}",
            f"--print-to-pdf={part.absolute()}",
            f"{page.absolute().as_uri()}#print",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # as root, in containers, it does not start with it
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_PRINT_S, check=False, text=True
            )
        except subprocess.TimeoutExpired as exc:
            raise ReportError(f"{browser} has not printed {page} within {_PRINT_S:g} s") from exc
        except OSError as exc:
            raise ReportError(f"{browser} cannot be run: {exc.strerror}") from exc
    if done.returncode != 0 or not part.is_file():
        reason = (done.stderr.strip().splitlines() or ["it did not say why"])[-1]
        raise ReportError(f"{browser} could not print {page} (exit {done.returncode}): {reason}")
    with output_errors(pdf):
        publish(part, pdf)

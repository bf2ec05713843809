"""A station on the line: a trigger comes, a picture is taken, a part goes on or is ejected.

    python line_trigger.py line1:8001 screw pictures/

Here a folder stands for the camera, and a printed line for the PLC. What matters is
what happens when there is no verdict: a part that nobody judged is ejected, and the
line is stopped when that happens again and again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from diffusionad_client import Client, DiffusionADError, Verdict

CYCLE_S = 0.5  # from the trigger to the ejector
MOST_IN_A_ROW = 3  # parts without a verdict, before the line is stopped


def triggers(folder: Path) -> Iterator[Path]:
    """Give the picture of each part, as the trigger would."""
    yield from sorted(path for path in folder.iterdir() if path.is_file())


def main() -> None:
    """Judge part by part, until the pictures end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="HOST:PORT of the server, several with commas")
    parser.add_argument("model", help="category")
    parser.add_argument("pictures", type=Path, help="folder that stands for the camera")
    options = parser.parse_args()

    unjudged = 0
    with Client(options.url, options.model, timeout=CYCLE_S) as client:
        client.inspect_batch([*triggers(options.pictures)][:1], timeout=30)  # the first is slower
        for part in triggers(options.pictures):
            try:
                found = client.inspect(part, reconstruction=False)
            except DiffusionADError as exc:
                unjudged += 1
                print(f"{part.name}: EJECT, no verdict: {exc}")
                if unjudged == MOST_IN_A_ROW:
                    raise SystemExit("STOP: no verdict for several parts in a row") from exc
                continue
            unjudged = 0
            action = "pass" if found.verdict is Verdict.OK else "EJECT"
            worst = next(iter(found.regions()), None)
            where = f", worst at {worst.left}, {worst.top}" if worst and action == "EJECT" else ""
            print(f"{part.name}: {action}, {found.verdict.value} {found.score:.3f}{where}")


if __name__ == "__main__":
    main()

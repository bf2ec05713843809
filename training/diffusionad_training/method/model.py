"""The whole detector: both networks, the schedule and the fixed noise of inference.

`NoisePrediction`, `Reconstruction` and `Segmentation` are the three steps
served by Triton; `DiffusionAD.forward` chains them. How images are restored, in
training and when served, is in restoration.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusionad_client.contract import TOP_PIXELS
from diffusionad_training.config import DetectorConfig
from diffusionad_training.method import diffusion
from diffusionad_training.method.features import NormalFeatures
from diffusionad_training.method.restoration import LARGE, Estimate, way_to_restore
from diffusionad_training.method.smoothing import smooth
from diffusionad_training.networks.noise_unet import NoiseUNet
from diffusionad_training.networks.segmentation_unet import SegmentationUNet


@dataclass(frozen=True)
class Detection:
    """The detector's answer, with what a picture of its work needs."""

    score: Tensor  # (N,)
    anomaly_map: Tensor  # (N, H, W) in [0, 1]
    reconstruction: Tensor  # (N, H, W, 3) uint8


def draw_noise(config: DetectorConfig, seed: int) -> Tensor:
    """Draw the fixed noise of inference, of both scales: (2, 3, size, size) float16.

    Half precision, exactly: as a constant of the served graph it is half the size.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 3, config.size, config.size, generator=generator)
    noise[LARGE] = diffusion.coarse(noise[LARGE], config.guidance.large_reduction)
    return noise.half()


class DiffusionAD(nn.Module):
    """A detector of `config`'s architecture. Its fixed noise is drawn from the seed given."""

    noise: Tensor
    alpha_bar: Tensor
    roi: Tensor | None  # (H, W) bool, True where pixels are inspected; None: everywhere

    def __init__(self, config: DetectorConfig, *, noise_seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.restoration = way_to_restore(config)
        self.noise_network = NoiseUNet(self.restoration.network)
        features = config.features
        self.features = NormalFeatures(features) if features.is_on else None
        self.segmentation_network = SegmentationUNet(
            config.segmentation_network,
            NormalFeatures.channels(features) if features.is_on else None,
        )
        schedule = config.schedule
        table = diffusion.alpha_bar_table(schedule.steps, schedule.beta_first, schedule.beta_last)
        # Computed in double precision, kept in single: not every device has doubles.
        self.register_buffer("alpha_bar", table.to(torch.float32), persistent=False)
        self.register_buffer("noise", draw_noise(config, noise_seed))
        self.register_buffer("roi", None, persistent=False)  # chosen at export, not trained

    def restrict_to(self, roi: Tensor | None) -> None:
        """Inspect the pixels inside `roi` (H, W) bool only, or with None the whole image."""
        self.roi = None if roi is None else roi.to(self.noise.device)

    @property
    def range_bottom(self) -> float:
        """The value of a black pixel inside the model; a white one is 1."""
        return -1.0 if self.config.signed_range else 0.0

    def normalise(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 -> (N, 3, H, W) in the model's range."""
        x = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        return x * 2 - 1 if self.config.signed_range else x

    def clamp(self, x: Tensor) -> Tensor:
        """Keep to the model's range."""
        return x.clamp(self.range_bottom, 1.0)

    def to_picture(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in the model's range -> (N, H, W, 3) uint8."""
        return (self.to_unit(x).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def alpha_bar_at(self, t: Tensor) -> Tensor:
        """Share of signal at steps t (N,) -> (N,) float32."""
        return self.alpha_bar[t]

    def estimate(self, x_t: Tensor, t: Tensor) -> Estimate:
        """One pass of the noise network; Eq. 6 turns either parametrisation into the other."""
        output = self.noise_network(x_t, t)
        alpha_bar = self.alpha_bar_at(t)
        if self.config.noise_network.parametrisation == "x0":
            return Estimate(diffusion.noise_from_x0(x_t, output, alpha_bar), output)
        return Estimate(output, diffusion.predict_x0(x_t, output, alpha_bar))

    def to_unit(self, x: Tensor) -> Tensor:
        """The model's range -> [0, 1]."""
        return (x + 1) / 2 if self.config.signed_range else x

    def segment(self, x0: Tensor, reconstruction: Tensor, sources: Tensor | None = None) -> Tensor:
        """Images and their reconstructions (N, 3, H, W) -> logits of the map (N, 1, H, W).

        `sources` (N,) says of which training images they are, see `NormalFeatures`.
        """
        features = None
        if self.features is not None:
            features = self.features(self.to_unit(x0), self.to_unit(reconstruction), sources)
        logits: Tensor = self.segmentation_network(x0, reconstruction, features)
        return logits

    def forward(self, images: Tensor) -> Detection:
        """(N, H, W, 3) uint8 -> the detection, with the fixed steps and noise."""
        reconstruction = self.restoration.restore(self, self.normalise(images))
        anomaly_map, score = Segmentation(self)(images, reconstruction)
        return Detection(score.squeeze(1), anomaly_map, self.to_picture(reconstruction))


class NoisePrediction(nn.Module):
    """Step 1: normalise, perturb at both scales (Eq. 1) and predict the noise of each."""

    def __init__(self, model: DiffusionAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 -> noisy and predicted noise, each (N, 2, 3, H, W).

        Without guidance the small scale stands at both places.
        """
        x0 = self.model.normalise(images)
        return self.model.restoration.predict_noise(self.model, x0)


class Reconstruction(nn.Module):
    """Step 2: one-step denoising at both scales and norm guidance, Eqs. 6 to 8.

    Without guidance Eq. 6 at the small scale alone.
    """

    def __init__(self, model: DiffusionAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, predicted_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Each (N, 2, 3, H, W) -> reconstruction (N, 3, H, W) and its picture, uint8."""
        x0 = self.model.restoration.reconstruct(self.model, noisy, predicted_noise)
        return x0, self.model.to_picture(x0)


class Segmentation(nn.Module):
    """Step 3: the anomaly map, 0 outside the region of interest, and the image score.

    The score is the mean of the map's highest pixels, before the map is smoothed: the mean
    of a small defect and its surroundings would be low.
    """

    def __init__(self, model: DiffusionAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 and (N, 3, H, W) -> map (N, H, W) and score (N, 1)."""
        x0 = self.model.normalise(images)
        logits = self.model.segment(x0, reconstruction)
        anomaly_map = torch.sigmoid(logits).squeeze(1)
        if self.model.roi is not None:
            anomaly_map = torch.where(self.model.roi, anomaly_map, 0.0)
        highest = anomaly_map.flatten(1).topk(TOP_PIXELS, dim=1).values
        if sigma := self.model.config.map_smoothing:
            anomaly_map = smooth(anomaly_map, sigma, self.model.roi)
        return anomaly_map, highest.mean(dim=1, keepdim=True)

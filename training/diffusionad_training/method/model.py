"""The whole detector: both networks, the schedule and the fixed noise of inference.

`NoisePrediction`, `Reconstruction` and `Segmentation` are the three steps
served by Triton; `DiffusionAD.forward` chains them, and training uses the
same parts with random steps and noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diffusionad_client.contract import TOP_PIXELS
from diffusionad_training.config import Config
from diffusionad_training.method import diffusion
from diffusionad_training.method.smoothing import smooth
from diffusionad_training.networks.noise_unet import NoiseUNet
from diffusionad_training.networks.segmentation_unet import SegmentationUNet

SMALL, LARGE = 0, 1  # index of each noise scale in `noisy` and `predicted_noise`


@dataclass(frozen=True)
class Estimate:
    """What the noise network says of a noisy image: two views of one estimate."""

    noise: Tensor  # (N, 3, H, W)
    x0: Tensor  # (N, 3, H, W), not clamped


@dataclass(frozen=True)
class Detection:
    """The detector's answer, with what a picture of its work needs."""

    score: Tensor  # (N,)
    anomaly_map: Tensor  # (N, H, W) in [0, 1]
    reconstruction: Tensor  # (N, H, W, 3) uint8


def draw_noise(size: int, seed: int) -> Tensor:
    """Draw the fixed noise of inference, of both scales: (2, 3, size, size) float16.

    Half precision, exactly: as a constant of the served graph it is half the size.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, size, size, generator=generator).half()


class DiffusionAD(nn.Module):
    """A detector of `config`'s architecture. Its fixed noise is drawn from the seed given."""

    noise: Tensor
    alpha_bar: Tensor
    roi: Tensor | None  # (H, W) bool, True where pixels are inspected; None: everywhere

    def __init__(self, config: Config, *, noise_seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.noise_network = NoiseUNet(
            config.noise_network
            if config.is_diffusion
            else replace(config.noise_network, skip_connections=False)
        )
        self.segmentation_network = SegmentationUNet(config.segmentation_network)
        schedule = config.schedule
        table = diffusion.alpha_bar_table(schedule.steps, schedule.beta_first, schedule.beta_last)
        # Computed in double precision, kept in single: not every device has doubles.
        self.register_buffer("alpha_bar", table.to(torch.float32), persistent=False)
        self.register_buffer("noise", draw_noise(config.size, noise_seed))
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

    def to_picture(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in the model's range -> (N, H, W, 3) uint8."""
        unit = (x + 1) / 2 if self.config.signed_range else x
        return (unit.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

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

    def reconstruct(
        self, x_ts: Tensor, noise_s: Tensor, x0_b: Tensor, alpha_bar_s: Tensor
    ) -> Tensor:
        """Norm-guided reconstruction, Eqs. 7 and 8, guide and result clamped to the range."""
        n = x0_b.clamp(self.range_bottom, 1.0)
        guided = diffusion.norm_guided_reconstruction(
            x_ts, noise_s, n, alpha_bar_s, self.config.guidance.weight
        )
        return guided.clamp(self.range_bottom, 1.0)

    def autoencode(self, x: Tensor) -> Tensor:
        """Restore images (N, 3, H, W) without noise, as an autoencoder does."""
        restored: Tensor = self.noise_network(x, torch.zeros(len(x), device=x.device))
        return restored

    def forward(self, images: Tensor) -> Detection:
        """(N, H, W, 3) uint8 -> the detection, with the fixed steps and noise."""
        if not self.config.is_diffusion:
            restored = self.autoencode(self.normalise(images)).clamp(self.range_bottom, 1.0)
            anomaly_map, score = Segmentation(self)(images, restored)
            return Detection(score.squeeze(1), anomaly_map, self.to_picture(restored))
        noisy, predicted = NoisePrediction(self)(images)
        reconstruction, picture = Reconstruction(self)(noisy, predicted)
        anomaly_map, score = Segmentation(self)(images, reconstruction)
        return Detection(score.squeeze(1), anomaly_map, picture)


class NoisePrediction(nn.Module):
    """Step 1: normalise, perturb at both scales (Eq. 1) and predict the noise of each."""

    def __init__(self, model: DiffusionAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) uint8 -> noisy and predicted noise, each (N, 2, 3, H, W).

        Without guidance the small scale stands at both places.
        """
        model = self.model
        x0 = model.normalise(images)
        steps = torch.tensor(model.config.guidance.steps, device=images.device)  # (S,)
        scales = len(steps)
        # All scales of an image lie side by side, and go through the network as one batch.
        count = images.shape[0]  # not len(): the exporter would take that for a constant
        t = steps.expand(count, scales).flatten()  # (S * N,)
        clean = x0[:, None].expand(-1, scales, -1, -1, -1).flatten(0, 1)  # (S * N, 3, H, W)
        noise = model.noise[:scales].to(torch.float32)
        noise = noise.expand(count, -1, -1, -1, -1).flatten(0, 1)
        x_t = diffusion.add_noise(clean, noise, model.alpha_bar_at(t))
        predicted = model.estimate(x_t, t).noise
        computed, served = (-1, scales, *x0.shape[1:]), (-1, 2, -1, -1, -1)
        return x_t.reshape(computed).expand(served), predicted.reshape(computed).expand(served)


class Reconstruction(nn.Module):
    """Step 2: one-step denoising at both scales and norm guidance, Eqs. 6 to 8.

    Without guidance Eq. 6 at the small scale alone.
    """

    def __init__(self, model: DiffusionAD) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, predicted_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Each (N, 2, 3, H, W) -> reconstruction (N, 3, H, W) and its picture, uint8."""
        guidance = self.model.config.guidance
        steps = torch.tensor(guidance.steps, device=noisy.device)
        alpha_bar = self.model.alpha_bar_at(steps)
        if not guidance.is_guided:
            x0_s = diffusion.predict_x0(
                noisy[:, SMALL], predicted_noise[:, SMALL], alpha_bar[SMALL]
            ).clamp(self.model.range_bottom, 1.0)
            return x0_s, self.model.to_picture(x0_s)
        x0_b = diffusion.predict_x0(noisy[:, LARGE], predicted_noise[:, LARGE], alpha_bar[LARGE])
        x0_g = self.model.reconstruct(
            noisy[:, SMALL], predicted_noise[:, SMALL], x0_b, alpha_bar[SMALL]
        )
        return x0_g, self.model.to_picture(x0_g)


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
        logits = self.model.segmentation_network(x0, reconstruction)
        anomaly_map = torch.sigmoid(logits).squeeze(1)
        if self.model.roi is not None:
            anomaly_map = torch.where(self.model.roi, anomaly_map, 0.0)
        highest = anomaly_map.flatten(1).topk(TOP_PIXELS, dim=1).values
        if sigma := self.model.config.map_smoothing:
            anomaly_map = smooth(anomaly_map, sigma, self.model.roi)
        return anomaly_map, highest.mean(dim=1, keepdim=True)

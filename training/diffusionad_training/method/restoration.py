"""The ways to restore an image: each one class, its training and its inference side by side.

`NormGuided` is the paper's way (Sec. 4.2), `OneScale` the same without its large step, and
`Autoencoder` what both are compared with (Table 3). The equations are in diffusion.py and
losses.py; what a way learns, and the fixed noise, belong to the model it is given.
Images are (N, 3, H, W) in the model's own range.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusionad_training.config import DetectorConfig, LossConfig, NoiseNetworkConfig
from diffusionad_training.errors import ConfigError
from diffusionad_training.method import diffusion, losses

if TYPE_CHECKING:
    from diffusionad_training.method.model import DiffusionAD

SMALL, LARGE = 0, 1  # index of each noise scale in `noisy` and `predicted_noise`


@dataclass(frozen=True)
class Estimate:
    """What the noise network says of a noisy image: two views of one estimate."""

    noise: Tensor  # (N, 3, H, W)
    x0: Tensor  # (N, 3, H, W), not clamped


@dataclass(frozen=True)
class TrainingImages:
    """What one training pass is given: whole images, and the windows of them to train on."""

    x0: Tensor  # (N, 3, H, W), anomalies blended in
    clean: Tensor  # (N, 3, H, W), the same without them: what the network should see
    masks: Tensor  # (N, 1, H, W), 1 where an anomaly is
    anomalous: Tensor  # (N,) bool, y of Eq. 9
    misplaced: Tensor  # (N,) bool, the anomaly is a whole component
    corners: Sequence[tuple[int, int]]  # top and left of each window
    side: int  # of the windows, in pixels

    def cut(self, x: Tensor) -> Tensor:
        """Cut the windows out of (N, C, H, W) -> (N, C, side, side)."""
        if self.side == x.shape[-1]:
            return x
        windows = [
            one[:, top : top + self.side, left : left + self.side]
            for one, (top, left) in zip(x, self.corners, strict=True)
        ]
        return torch.stack(windows)

    @cached_property
    def windows(self) -> TrainingImages:
        """The windows as images of their own, of which nothing more is cut."""
        return replace(
            self, x0=self.cut(self.x0), clean=self.cut(self.clean), masks=self.cut(self.masks)
        )


class Restoration(ABC):
    """One way to restore images; it keeps the settings and nothing else."""

    is_served = True  # has the steps of the contract; otherwise it is for comparison only

    def __init__(self, config: DetectorConfig) -> None:
        self.config = config

    @property
    def network(self) -> NoiseNetworkConfig:
        """The network that restores."""
        return self.config.noise_network

    @property
    @abstractmethod
    def steps(self) -> tuple[int, ...]:
        """The fixed noise steps of inference that it is trained for: the small, then the large."""

    @abstractmethod
    def train(
        self, model: DiffusionAD, images: TrainingImages, loss: LossConfig
    ) -> tuple[Tensor, Tensor]:
        """Restore windows as in training: their reconstructions, clamped, and noise loss ()."""

    @abstractmethod
    def predict_noise(self, model: DiffusionAD, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Step 1 as served: images -> noisy and predicted noise, each (N, 2, 3, H, W)."""

    @abstractmethod
    def reconstruct(self, model: DiffusionAD, noisy: Tensor, predicted_noise: Tensor) -> Tensor:
        """Step 2 as served: both of step 1 -> the reconstructions, clamped."""

    def restore(self, model: DiffusionAD, x0: Tensor) -> Tensor:
        """Restore images as they are when served: the reconstructions, clamped."""
        return self.reconstruct(model, *self.predict_noise(model, x0))

    @abstractmethod
    def show(self, model: DiffusionAD, x0: Tensor) -> dict[str, Tensor]:
        """What a picture of it at work shows, by the paper's letters: the reconstructions last."""


class _OneStep(Restoration):
    """What one-step denoising at any scales has in common: the noise, and its prediction."""

    def predict_noise(self, model: DiffusionAD, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1 with the fixed noise, all scales of an image in one batch."""
        steps = torch.tensor(self.steps, device=x0.device)  # (S,)
        scales = len(steps)
        # All scales of an image lie side by side, and go through the network as one batch.
        count = x0.shape[0]  # not len(): the exporter would take that for a constant
        t = steps.expand(count, scales).flatten()  # (S * N,)
        clean = x0[:, None].expand(-1, scales, -1, -1, -1).flatten(0, 1)  # (S * N, 3, H, W)
        noise = model.noise[:scales].to(torch.float32)
        noise = noise.expand(count, -1, -1, -1, -1).flatten(0, 1)
        x_t = diffusion.add_noise(clean, noise, model.alpha_bar_at(t))
        predicted = model.estimate(x_t, t).noise
        # The contract has two scales: one alone stands at both places.
        computed, served = (-1, scales, *x0.shape[1:]), (-1, 2, -1, -1, -1)
        return x_t.reshape(computed).expand(served), predicted.reshape(computed).expand(served)

    def _alpha_bar(self, model: DiffusionAD, device: torch.device) -> Tensor:
        """Shares of signal at the fixed steps, (S,)."""
        return model.alpha_bar_at(torch.tensor(self.steps, device=device))


class NormGuided(_OneStep):
    """Norm-guided one-step denoising, Sec. 4.2: the small step pulled towards the large one's.

    With a `large_reduction` of k the network sees the large step on the image at 1/k of its
    side; its x0 there, enlarged, is the x0 that its noise stands for. All equations hold as
    they are.
    """

    @property
    def steps(self) -> tuple[int, ...]:
        """t_s and t_b of inference."""
        return (self.config.guidance.small_step, self.config.guidance.large_step)

    def predict_noise(self, model: DiffusionAD, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1 with the fixed noise, and what the network takes for it at both scales."""
        if self.config.guidance.large_reduction == 1:
            return super().predict_noise(model, x0)
        # One step for all images: what the network makes of it is a constant of the graph.
        t_s, t_b = (torch.tensor([step], device=x0.device) for step in self.steps)
        noise_s, noise_b = model.noise.to(torch.float32).unbind()
        x_ts = diffusion.add_noise(x0, noise_s, model.alpha_bar_at(t_s))
        x_tb = diffusion.add_noise(x0, noise_b, model.alpha_bar_at(t_b))
        both = self.estimate(model, x_ts, t_s, x_tb, t_b)
        return torch.stack([x_ts, x_tb], dim=1), torch.stack([one.noise for one in both], dim=1)

    def estimate(
        self, model: DiffusionAD, x_ts: Tensor, t_s: Tensor, x_tb: Tensor, t_b: Tensor
    ) -> tuple[Estimate, Estimate]:
        """Eq. 6 at both scales, the large one on the reduced image."""
        k = self.config.guidance.large_reduction
        if k == 1:
            count = len(x_ts)
            # Both scales in one pass: the batch is twice as large, the network the same.
            both = model.estimate(torch.cat([x_ts, x_tb]), torch.cat([t_s, t_b]))
            return (
                Estimate(both.noise[:count], both.x0[:count]),
                Estimate(both.noise[count:], both.x0[count:]),
            )
        x0_b = diffusion.enlarged(model.estimate(diffusion.reduced(x_tb, k), t_b).x0, k)
        noise_b = diffusion.noise_from_x0(x_tb, x0_b, model.alpha_bar_at(t_b))
        return model.estimate(x_ts, t_s), Estimate(noise_b, x0_b)

    def guide(
        self, model: DiffusionAD, x_ts: Tensor, noise_s: Tensor, x0_b: Tensor, alpha_bar_s: Tensor
    ) -> Tensor:
        """Eqs. 7 and 8, in training and when served: guide and result clamped to the range."""
        n = model.clamp(x0_b)
        weight = self.config.guidance.weight
        noise_g = diffusion.guided_noise(x_ts, noise_s, n, alpha_bar_s, weight)  # Eq. 7
        return model.clamp(diffusion.norm_guided_reconstruction(x_ts, noise_g, alpha_bar_s))

    def train(
        self, model: DiffusionAD, images: TrainingImages, loss: LossConfig
    ) -> tuple[Tensor, Tensor]:
        """Eqs. 1 and 6 to 9 at random steps of both scales.

        A reduced large step sees the whole image, for as much as a window costs: where a
        component belongs, no window tells.
        """
        guidance = self.config.guidance
        seen_s = images.windows
        seen_b = images if guidance.large_reduction > 1 else seen_s
        t_s = _random_steps(guidance.small_steps, seen_s.x0)
        t_b = _random_steps(guidance.large_steps, seen_b.x0)
        noise_s = torch.randn_like(seen_s.x0)
        noise_b = diffusion.coarse(torch.randn_like(seen_b.x0), guidance.large_reduction)
        alpha_bar_s, alpha_bar_b = model.alpha_bar_at(t_s), model.alpha_bar_at(t_b)
        x_ts = diffusion.add_noise(seen_s.x0, noise_s, alpha_bar_s)  # Eq. 1
        x_tb = diffusion.add_noise(seen_b.x0, noise_b, alpha_bar_b)
        estimate_s, estimate_b = self.estimate(model, x_ts, t_s, x_tb, t_b)  # Eq. 6
        n = seen_b.cut(estimate_b.x0)
        reconstruction = self.guide(model, x_ts, estimate_s.noise, n, alpha_bar_s)
        if loss.components_at_large_step:
            # What the small step is to see in a misplaced component is what is there.
            kept = torch.where(images.misplaced.view(-1, 1, 1, 1), seen_s.x0, seen_s.clean)
            seen_s = replace(seen_s, clean=kept)
        noise_loss = losses.noise_loss(  # Eq. 9
            _error(self.network, seen_s, x_ts, estimate_s, alpha_bar_s, loss),
            _error(self.network, seen_b, x_tb, estimate_b, alpha_bar_b, loss),
            images.anomalous,
            loss.restoration_weight,
        )
        return reconstruction, noise_loss

    def reconstruct(self, model: DiffusionAD, noisy: Tensor, predicted_noise: Tensor) -> Tensor:
        """Eq. 6 at the large step, and Eqs. 7 and 8."""
        alpha_bar = self._alpha_bar(model, noisy.device)
        x0_b = diffusion.predict_x0(noisy[:, LARGE], predicted_noise[:, LARGE], alpha_bar[LARGE])
        return self.guide(model, noisy[:, SMALL], predicted_noise[:, SMALL], x0_b, alpha_bar[SMALL])

    def show(self, model: DiffusionAD, x0: Tensor) -> dict[str, Tensor]:
        """x_ts, x_tb, x0_s, n and x0_g."""
        noisy, predicted = self.predict_noise(model, x0)
        alpha_bar = self._alpha_bar(model, x0.device)
        x0_s, n = (
            diffusion.predict_x0(noisy[:, scale], predicted[:, scale], alpha_bar[scale])
            for scale in (SMALL, LARGE)
        )
        return {
            "x_ts": noisy[:, SMALL],
            "x_tb": noisy[:, LARGE],
            "x0_s": x0_s,
            "n": n,
            "x0_g": self.reconstruct(model, noisy, predicted),
        }


class OneScale(_OneStep):
    """One-step denoising at the small step alone: Table 3."""

    @property
    def steps(self) -> tuple[int, ...]:
        """t_s of inference."""
        return (self.config.guidance.small_step,)

    def train(
        self, model: DiffusionAD, images: TrainingImages, loss: LossConfig
    ) -> tuple[Tensor, Tensor]:
        """Eqs. 1, 6 and 9 at a random small step."""
        images = images.windows
        x0 = images.x0
        t_s = _random_steps(self.config.guidance.small_steps, x0)
        alpha_bar = model.alpha_bar_at(t_s)
        x_ts = diffusion.add_noise(x0, torch.randn_like(x0), alpha_bar)  # Eq. 1
        estimate = model.estimate(x_ts, t_s)  # Eq. 6
        error = _error(self.network, images, x_ts, estimate, alpha_bar, loss)
        noise_loss = losses.noise_loss(
            error, error, images.anomalous, loss.restoration_weight
        )  # Eq. 9
        return model.clamp(estimate.x0), noise_loss

    def reconstruct(self, model: DiffusionAD, noisy: Tensor, predicted_noise: Tensor) -> Tensor:
        """Eq. 6 at the small step."""
        alpha_bar = self._alpha_bar(model, noisy.device)
        x0_s = diffusion.predict_x0(noisy[:, SMALL], predicted_noise[:, SMALL], alpha_bar[SMALL])
        return model.clamp(x0_s)

    def show(self, model: DiffusionAD, x0: Tensor) -> dict[str, Tensor]:
        """x_ts and x0_s."""
        noisy, predicted = self.predict_noise(model, x0)
        return {"x_ts": noisy[:, SMALL], "x0_s": self.reconstruct(model, noisy, predicted)}


class Autoencoder(Restoration):
    """The image through the network at once, without noise: the first row of Table 3."""

    is_served = False

    @property
    def network(self) -> NoiseNetworkConfig:
        """The same network, but never with skips, which would hand the image on as it is."""
        return replace(self.config.noise_network, skip_connections=False)

    @property
    def steps(self) -> tuple[int, ...]:
        """None: nothing is noisy."""
        return ()

    def train(
        self, model: DiffusionAD, images: TrainingImages, loss: LossConfig
    ) -> tuple[Tensor, Tensor]:
        """Restore images, anomalous ones too, as DRAEM does."""
        images = images.windows
        restored = self._encode(model, images.x0)
        # The weight that clean images have in the diffusion network's loss.
        error = loss.snr_cap * losses.squared_error(
            images.clean, restored, _pixel_weights(images.masks, loss)
        )
        noise_loss = losses.noise_loss(error, error, images.anomalous, restoration_weight=1.0)
        return model.clamp(restored), noise_loss

    def restore(self, model: DiffusionAD, x0: Tensor) -> Tensor:
        """One pass."""
        return model.clamp(self._encode(model, x0))

    def show(self, model: DiffusionAD, x0: Tensor) -> dict[str, Tensor]:
        """The reconstruction alone."""
        return {"x0_hat": self.restore(model, x0)}

    def predict_noise(self, model: DiffusionAD, x0: Tensor) -> tuple[Tensor, Tensor]:
        """There is none. Raises `ConfigError`."""
        raise ConfigError("an autoencoder has no noise to predict")

    def reconstruct(self, model: DiffusionAD, noisy: Tensor, predicted_noise: Tensor) -> Tensor:
        """It has no such step. Raises `ConfigError`."""
        raise ConfigError("an autoencoder has no noise to remove")

    def _encode(self, model: DiffusionAD, x: Tensor) -> Tensor:
        restored: Tensor = model.noise_network(x, torch.zeros(len(x), device=x.device))
        return restored


def way_to_restore(config: DetectorConfig) -> Restoration:
    """Choose the class: the one place that asks what kind of detector this is."""
    if config.restoration == "autoencoder":
        return Autoencoder(config)
    return NormGuided(config) if config.guidance.weight > 0 else OneScale(config)


def _random_steps(steps: range, images: Tensor) -> Tensor:
    """Draw one of the steps for each image, (N,)."""
    return torch.randint(steps.start, steps.stop, (len(images),), device=images.device)


def _pixel_weights(masks: Tensor, loss: LossConfig) -> Tensor | None:
    """Weights of the pixels in Eq. 9, (N, 1, H, W); None: all alike."""
    weight = loss.anomaly_weight
    return None if weight == 1 else torch.where(masks > 0, weight, 1.0)


def _error(
    network: NoiseNetworkConfig,
    images: TrainingImages,
    x_t: Tensor,
    estimate: Estimate,
    alpha_bar: Tensor,
    loss: LossConfig,
) -> Tensor:
    """Error at each image, (N,); a normal one has the very noise that was added as its target."""
    weights = _pixel_weights(images.masks, loss)
    if network.parametrisation == "x0":
        return losses.weighted_x0_error(images.clean, estimate.x0, alpha_bar, loss.snr_cap, weights)
    noise = diffusion.noise_from_x0(x_t, images.clean, alpha_bar)
    return losses.squared_error(noise, estimate.noise, weights)

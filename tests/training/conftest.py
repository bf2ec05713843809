"""A tiny detector and a tiny data set, trained in seconds."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_training.config import (
    Config,
    DetectorConfig,
    GuidanceConfig,
    NoiseNetworkConfig,
    OptimisationConfig,
    SegmentationNetworkConfig,
    SynthesisConfig,
    TrainingConfig,
)
from diffusionad_training.export import bundle
from diffusionad_training.export.graphs import trace_step
from diffusionad_training.fit import train
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.run.checkpoint import load_run

SIZE = 64


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return Config(
        preset="tiny",
        detector=DetectorConfig(
            size=SIZE,
            guidance=GuidanceConfig(last_step=600),
            noise_network=NoiseNetworkConfig(
                base_channels=16,
                groups=8,
                multipliers=(1, 2),
                blocks=1,
                attention_levels=(1,),
                unshuffle=4,
                parametrisation="x0",
            ),
            segmentation_network=SegmentationNetworkConfig(widths=(8, 16), unshuffle=2),
        ),
        training=TrainingConfig(
            synthesis=SynthesisConfig(
                texture_share=0, self_share=0.5, procedural_share=0.5, stroke_share=0.5
            ),
            optimisation=OptimisationConfig(
                normal_per_batch=2,
                synthetic_per_batch=2,
                steps=6,
                noise_learning_rate=1e-3,
                segmentation_learning_rate=1e-3,
                warmup_steps=2,
                cosine_decay=True,
                ema_decay=0.9,
                gradient_clip=1.0,
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_data(made_once: Callable[..., Path]) -> Path:
    """Striped grey plates; the defective ones have a bright square. MVTec's layout."""
    return made_once("plates", draw_plates)


def draw_plates(root: Path) -> None:
    rng = np.random.default_rng(0)

    def plate() -> np.ndarray:
        stripes = 110 + 20 * np.sin(np.arange(80) / 3 + rng.uniform(0, 6))
        noisy = stripes[None] + rng.normal(0, 4, (80, 80))
        return np.repeat(np.clip(noisy, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)

    def save(array: np.ndarray, *parts: str) -> None:
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)

    for index in range(10):
        save(plate(), "train", "good", f"{index:03d}.png")
    for index in range(3):
        save(plate(), "test", "good", f"{index:03d}.png")
        defective, mask = plate(), np.zeros((80, 80), np.uint8)
        y, x = rng.integers(5, 60, size=2)
        defective[y : y + 14, x : x + 14] = 240
        mask[y : y + 14, x : x + 14] = 255
        save(defective, "test", "spot", f"{index:03d}.png")
        save(mask, "ground_truth", "spot", f"{index:03d}_mask.png")


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tiny_config: Config, made_once: Callable[..., Path]) -> Path:
    def make(folder: Path) -> None:
        output = folder / "plates"
        plan = TrainingPlan(tiny_data, output, tiny_config, held_out_share=0.3, workers=0, seed=3)
        train.train(plan)

    return made_once("runs", make) / "plates"


@pytest.fixture
def copied_run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "copy")


@pytest.fixture(scope="session")
def tiny_traced(tiny_run: Path, made_once: Callable[..., Path]) -> dict[Step, onnx.ModelProto]:
    """The graphs of `tiny_run`, as the exporter traces them. Leave them as they are."""

    def make(folder: Path) -> None:
        folder.mkdir()
        model = load_run(tiny_run).model
        for step in NETWORK_STEPS:
            onnx.save(trace_step(model, step), folder / f"{step.value}.onnx")

    folder = made_once("traced", make)
    return {step: onnx.load(folder / f"{step.value}.onnx") for step in NETWORK_STEPS}


@pytest.fixture(scope="session")
def traced_before(
    tiny_traced: dict[Step, onnx.ModelProto],
) -> Callable[..., AbstractContextManager[None]]:
    """Within `traced_before(*steps)` exports of `tiny_run` take those steps' graphs as traced.

    Tracing takes twenty seconds, and gives the same every time, as `test_export` shows.
    """

    @contextmanager
    def context(*steps: Step) -> Iterator[None]:
        real = bundle.trace_step
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                bundle,
                "trace_step",
                lambda model, step: tiny_traced[step] if step in steps else real(model, step),
            )
            yield

    return context

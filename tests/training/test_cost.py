"""What presets cost: counted without contents, held against published figures."""

import json

import pytest
from click.testing import CliRunner

from diffusionad_client.cli import main
from diffusionad_training.config import Config, presets
from diffusionad_training.config.presets import EDGE, PAPER, STANDARD
from diffusionad_training.config.settings import changed
from diffusionad_training.footprint import speed
from diffusionad_training.footprint.cost import blank_batch, cost, training_bytes

CARD = 24 * 2**30  # bytes
LIBRARIES = 2 * 2**30  # what CUDA, its workspaces and fragmentation may take of it


def batched(config: Config, *, batch: int, accumulate: int = 1, recompute: bool = False) -> Config:
    return changed(
        config,
        {
            "noise_network.recompute": recompute,
            "optimisation.normal_per_batch": batch // 2,
            "optimisation.synthetic_per_batch": batch // 2,
            "optimisation.accumulate": accumulate,
        },
    )


def test_the_paper_preset_needs_the_published_operations() -> None:
    counted = cost(PAPER)
    assert counted.noise_pass_flop / 1e9 == pytest.approx(563.17, rel=0.01)
    assert counted.segmentation_pass_flop / 1e9 == pytest.approx(76.03, rel=0.01)
    assert counted.inference_flop / 1e9 == pytest.approx(1202, rel=0.01)


def test_memory_grows_with_the_batch_by_the_same_for_each_image(tiny_config: Config) -> None:
    two, four, eight = (training_bytes(batched(tiny_config, batch=batch)) for batch in (2, 4, 8))
    assert (eight - four) / 4 == pytest.approx((four - two) / 2, rel=0.02)


def test_the_estimate_holds_weights_gradients_moments_and_average(tiny_config: Config) -> None:
    counted = cost(tiny_config)
    weights = 4 * (counted.noise_network_parameters + counted.segmentation_network_parameters)
    averaged = training_bytes(tiny_config)
    plain = training_bytes(changed(tiny_config, {"optimisation.ema_decay": 0.0}))
    assert averaged - plain == pytest.approx(weights, rel=0.1)
    # Weights and moments are always there, and then what the batch needs.
    assert plain > 3 * weights + sum(t.nbytes for t in blank_batch(tiny_config).values())


@pytest.mark.long
def test_the_paper_trains_on_24_gb_as_the_documentation_says() -> None:
    # Known of the authors' code: 4 images do not fit.
    assert training_bytes(batched(PAPER, batch=4)) > CARD - LIBRARIES
    halved = batched(PAPER, batch=8, accumulate=2, recompute=True)
    assert training_bytes(halved) < CARD - LIBRARIES


def test_the_standard_preset_trains_on_8_gb() -> None:
    assert training_bytes(STANDARD) < 7 * 2**30


def test_half_precision_takes_less_memory() -> None:
    assert EDGE.training.optimisation.precision == "fp32"
    half = changed(EDGE, {"optimisation.precision": "bf16"})
    assert training_bytes(half) < 0.9 * training_bytes(EDGE)


def test_the_command_prints_the_costs_as_table_and_as_json() -> None:
    rows = json.loads(CliRunner().invoke(main, ["presets", "--json"]).stdout)
    assert list(rows) == ["paper", "standard", "edge"]
    assert rows["paper"]["noise_network_parameters"] == 131_654_403
    assert rows["paper"]["segmentation_network_parameters"] == 28_373_569
    assert rows["paper"]["inference_gflop_per_image"] == pytest.approx(1202, rel=0.01)
    assert rows["paper"]["estimated_training_memory_gib"] > 60
    assert "measured" not in rows["paper"]
    table = CliRunner().invoke(main, ["presets"]).stdout
    assert all(figure in table for figure in ("131.7 + 28.4", "1,202", "2×(4+4)"))


def test_one_preset_may_be_asked_for() -> None:
    result = CliRunner().invoke(main, ["presets", "--preset", "edge", "--json"])
    assert list(json.loads(result.stdout)) == ["edge"]
    result = CliRunner().invoke(main, ["presets", "--preset", "huge"])
    assert result.exit_code == 1
    assert "no preset 'huge'; there are paper, standard, edge" in result.output


def test_speed_is_measured_on_request(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_ENOUGH", 0.1)
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny_config)
    result = CliRunner().invoke(main, ["presets", "--preset", "tiny", "--measure", "--json"])
    measured = json.loads(result.stdout)["tiny"]["measured"]
    assert measured["inference_images_per_s"] > 0
    assert measured["training_images_per_s"] > 0
    assert measured["training_not_measured_because"] is None
    assert measured["device"]


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("_PATIENCE", 0.0, "a step would take about"), ("_SHARE_OF_MEMORY", 0.0, "needs about")],
)
def test_training_that_is_too_much_for_the_machine_is_left_out_and_said(
    limit: str,
    value: float,
    message: str,
    tiny_config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "_ENOUGH", 0.1)
    monkeypatch.setattr(speed, limit, value)
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny_config)
    result = CliRunner().invoke(main, ["presets", "--preset", "tiny", "--measure"])
    assert result.exit_code == 0, result.output
    assert message in result.output

"""`diffusionad presets`: what can be trained, how large it is, and how fast."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from diffusionad_training.config import Config
    from diffusionad_training.footprint.cost import Cost
    from diffusionad_training.footprint.speed import Speed


@click.command()
@click.option("--preset", help="Only this one.")
@click.option(
    "--measure",
    is_flag=True,
    help="Time scoring and training on the best device here: a minute or so a preset. What "
    "would take too long or too much memory is not tried.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def presets(preset: str | None, measure: bool, as_json: bool) -> None:
    """List the presets of `diffusionad train`, and what each costs.

    Memory is that of training at the preset's batch, estimated; GFLOP are those
    of scoring one image, a multiply-add being two.

    \b
      diffusionad presets --measure --preset edge
    """
    from diffusionad_training.config.presets import ON_TEXTURES, PRESETS, customised
    from diffusionad_training.config.settings import changes
    from diffusionad_training.footprint import speed
    from diffusionad_training.footprint.cost import cost

    configs = PRESETS if preset is None else {preset: customised(preset, with_textures=True)}
    costs = {name: cost(config) for name, config in configs.items()}
    speeds = {name: speed.measure(config) for name, config in configs.items()} if measure else {}
    if as_json:
        rows = {
            name: _row(configs[name], costs[name], speeds.get(name))
            | {"on_textures": changes(configs[name], ON_TEXTURES.get(name, configs[name]))}
            for name in configs
        }
        click.echo(json.dumps(rows, indent=2))
    else:
        _print(configs, costs, speeds)


def _row(config: Config, cost: Cost, speed: Speed | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "noise_network_parameters": cost.noise_network_parameters,
        "segmentation_network_parameters": cost.segmentation_network_parameters,
        "noise_network_gflop_per_pass": cost.noise_pass_flop / 1e9,
        "segmentation_network_gflop_per_pass": cost.segmentation_pass_flop / 1e9,
        "inference_gflop_per_image": cost.inference_flop / 1e9,
        "estimated_training_memory_gib": cost.training_bytes / 2**30,
    }
    if speed is not None:
        row["measured"] = {
            "device": speed.device,
            "inference_images_per_s": speed.inference_images_per_s,
            "training_images_per_s": speed.training_images_per_s,
            "training_not_measured_because": speed.not_measured,
        }
    return row | {"config": json.loads(config.to_json())}


def _print(configs: dict[str, Config], costs: dict[str, Cost], speeds: dict[str, Speed]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("preset", "M parameters\nnoise + segm.")
    for heading in ("GFLOP\nan image", "training\nGiB", "batch", "steps"):
        table.add_column(heading, justify="right", no_wrap=True)
    if speeds:
        table.add_column("images/s\nscored", justify="right")
        table.add_column("images/s\ntrained", justify="right")
    for name, config in configs.items():
        cost, optimisation = costs[name], config.training.optimisation
        batch = f"{optimisation.normal_per_batch}+{optimisation.synthetic_per_batch}"
        row = [
            name,
            f"{cost.noise_network_parameters / 1e6:.1f} + "
            f"{cost.segmentation_network_parameters / 1e6:.1f}",
            f"{cost.inference_flop / 1e9:,.1f}",
            f"{cost.training_bytes / 2**30:.1f}",
            batch if optimisation.accumulate == 1 else f"{optimisation.accumulate}×({batch})",
            f"{optimisation.steps:,}",
        ]
        if speeds:
            trained = speeds[name].training_images_per_s
            row.append(f"{speeds[name].inference_images_per_s:.2g}")
            row.append("–" if trained is None else f"{trained:.2g}")
        table.add_row(*row)
    Console().print(table)
    for name, speed in speeds.items():
        why = f"; training not measured: {speed.not_measured}" if speed.not_measured else ""
        click.echo(f"{name}: measured on {speed.device}{why}")

"""`diffusionad presets`: what can be trained, and how large it is."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def presets(as_json: bool) -> None:
    """List the presets of `diffusionad train`."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from diffusionad_training.model import DiffusionAD
    from diffusionad_training.presets import PRESETS

    rows = {}
    for name, config in PRESETS.items():
        with torch.device("meta"):  # shapes alone: nothing is allocated
            model = DiffusionAD(config)
        rows[name] = {
            "noise_network_parameters": _count(model.noise_network),
            "segmentation_network_parameters": _count(model.segmentation_network),
            "config": json.loads(config.to_json()),
        }
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    table = Table("preset", "size", "noise network", "segmentation", "batch", "steps")
    for name, config in PRESETS.items():
        optimisation = config.optimisation
        table.add_row(
            name,
            f"{config.size}²",
            f"{rows[name]['noise_network_parameters']:,}",
            f"{rows[name]['segmentation_network_parameters']:,}",
            f"{optimisation.normal_per_batch} + {optimisation.synthetic_per_batch}",
            f"{optimisation.steps:,}",
        )
    Console().print(table)


def _count(module: object) -> int:
    from torch import nn

    assert isinstance(module, nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())

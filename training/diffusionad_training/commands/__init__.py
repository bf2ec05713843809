"""The training side's subcommands of `diffusionad`, one module each."""

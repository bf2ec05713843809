"""The tools' subcommands of `diffusionad`, one module each."""

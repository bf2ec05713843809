"""The client's subcommands of `diffusionad`, one module each."""

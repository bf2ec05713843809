"""`python -m diffusionad_client`: the command `diffusionad` of this very environment."""

from diffusionad_client.cli import main

if __name__ == "__main__":
    main(prog_name="diffusionad")

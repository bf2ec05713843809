"""What all tests share."""

from hypothesis import settings

# Shared machines are slow by turns: a deadline would test the neighbour's load.
settings.register_profile("diffusionad", deadline=None, derandomize=True)
settings.load_profile("diffusionad")

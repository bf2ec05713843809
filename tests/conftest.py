"""What all tests share."""

import os

from hypothesis import settings

# Tiny networks gain nothing from threads, and lose much to each other's: tests start many
# processes. Before anything loads torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Shared machines are slow by turns: a deadline would test the neighbour's load.
settings.register_profile("diffusionad", deadline=None, derandomize=True)
settings.load_profile("diffusionad")

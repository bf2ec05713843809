"""What all tests share."""

import os
import signal

from hypothesis import settings

# Tiny networks gain nothing from threads, and lose much to each other's: tests start many
# processes. Before anything loads torch or numpy.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores SIGINT, and so do the processes that it starts: what tests
# interrupt would run on.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines are slow by turns: a deadline would test the neighbour's load.
settings.register_profile("diffusionad", deadline=None, derandomize=True)
settings.load_profile("diffusionad")

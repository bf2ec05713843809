"""Run `diffusionad serve` as a subprocess, for commands that are given a folder instead of a URL.

The server is another distribution; it is reached by its command alone. It
prints `READY_PREFIX` and its gRPC address on standard output once all models
are ready, and it stops when its standard input closes, so that it never
outlives the process that started it.
"""

from __future__ import annotations

READY_PREFIX = "Ready for gRPC on "  # followed by HOST:PORT and the end of the line

"""Serve and release DiffusionAD models with an embedded Triton; no torch needed."""

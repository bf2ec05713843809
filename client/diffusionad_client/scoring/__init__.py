"""Scoring many images at once: where they come from, the run, its results and pictures."""

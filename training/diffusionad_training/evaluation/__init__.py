"""Measure a detector on labelled test images: figures, curves, and the images that tell most."""

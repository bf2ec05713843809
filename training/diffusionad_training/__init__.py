"""Train, evaluate and export DiffusionAD anomaly detectors (arXiv:2303.08730v4)."""

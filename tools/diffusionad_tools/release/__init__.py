"""Releases: from a bundle that training exported to models that any Triton serves."""

"""Measurements that docs/ quotes, each a module to run with `python -m`."""

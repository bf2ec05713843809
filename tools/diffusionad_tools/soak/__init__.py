"""Hours of mixed load on an embedded Triton, held against what an undisturbed server answers."""

"""Two releases side by side: the same images scored by both, and what changed between them."""

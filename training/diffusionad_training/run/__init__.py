"""A run on disk: its checkpoint, how it goes on, and weights to begin from."""

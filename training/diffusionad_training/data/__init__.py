"""Images on disk: where they lie, how they are split and how they reach the trainer."""

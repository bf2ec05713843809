"""What a preset costs: counted from its networks, or measured here."""

"""What the sides exchange: metadata, release bundles, regions, thresholds and their agreement."""

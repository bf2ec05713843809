"""Whether scores still lie where they lay, and thresholds still mean what they were set to."""

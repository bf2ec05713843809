"""Score what comes into a folder, as it comes."""

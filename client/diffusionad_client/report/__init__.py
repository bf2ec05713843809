"""The report: one HTML page made from results alone, for the people at the line."""

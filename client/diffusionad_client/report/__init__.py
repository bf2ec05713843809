"""The report: one HTML file with its pictures inside, for the people at the line."""

"""A procedural product from a made-up line: a brushed metal plate, good or with one defect.

`products` says what the line makes, `geometry` where things are and `clip` what
may be mounted there, `part` what varies from part to part, `rendering` how a
part looks, `defects` what can go wrong with it, and `dataset` writes them all
to a folder in MVTec's layout.
"""

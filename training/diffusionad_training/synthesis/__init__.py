"""Synthetic anomalies (Sec. 4.4): where they lie (masks), what they show (sources), both blended.

Everything works on RGB uint8 arrays (H, W, 3) and draws from the generator it
is given; nothing keeps a state between calls.
"""

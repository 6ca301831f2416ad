"""learning: experiments that decide how the platform learns, on folds through time.

Belongs here: bake-offs of ways to treat late, rare and biased labels, search, blends; pure, arrays and frames
in, frozen tables out.
Does not belong here: the one way that won (`train`), metrics and folds (`evaluate`), reading and plotting
(`adapters`).
"""

"""Ranks, links, cuts: everything that happens between nodes. Knows nothing of HTTP or text."""

"""Asks a person before a run spends more than a set amount. Knows nothing of what the money buys."""

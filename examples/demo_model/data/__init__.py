"""Writes the training text: our own words, put together by a seeded random generator."""

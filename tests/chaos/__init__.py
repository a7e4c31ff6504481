"""Faults under load: real processes, broken on purpose, and answers that must not change."""

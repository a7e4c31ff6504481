"""Measured against peers in one run, never asserted in tests."""

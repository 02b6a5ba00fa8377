"""Measuring what layers cost in time."""

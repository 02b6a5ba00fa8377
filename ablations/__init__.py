"""Scripted ablations: one file asks one question; `python -m ablations` runs it."""

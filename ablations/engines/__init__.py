"""Engines: where trials run. The seam is in engine.py; each other file is one engine."""

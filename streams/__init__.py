"""Runners that feed the projections from the log."""

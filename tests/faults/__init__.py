"""Attacks by kill -9: what was served must be on the books, once."""

"""Adapters: each implements a port against a real library, store or server."""

"""Benchmarks: figures and ratios against nginx in the same run. Nothing here asserts on time."""

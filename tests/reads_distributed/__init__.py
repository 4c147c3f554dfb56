"""Reads in distributed mode: a read process over views that workers feed, on real servers."""

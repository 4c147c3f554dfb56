"""Attacks on the promises from outside: the running product as processes, over HTTP and by signals."""

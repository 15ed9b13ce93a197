"""Benchmarks: each is a command that writes its results beside it."""

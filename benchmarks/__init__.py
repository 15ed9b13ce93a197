"""Benchmarks: each is a command whose output is committed under ``results/``."""

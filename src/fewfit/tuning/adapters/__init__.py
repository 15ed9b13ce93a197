"""Modules at the sites of a network."""

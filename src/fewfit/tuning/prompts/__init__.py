"""Vectors that a network reads beside the text."""

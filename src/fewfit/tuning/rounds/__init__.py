"""Trainings that build on one another."""

"""Answers already paid for, on disk, in front of any frozen model."""

from fewfit.store.file import default_path
from fewfit.store.model import StoredModel
from fewfit.store.upkeep import clear, drop, prune, statistics

__all__ = ["StoredModel", "clear", "default_path", "drop", "prune", "statistics"]

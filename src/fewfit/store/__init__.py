"""Answers already paid for, on disk, in front of any frozen model."""

from fewfit.store.file import clear, default_path, drop, prune, statistics
from fewfit.store.model import StoredModel

__all__ = ["StoredModel", "clear", "default_path", "drop", "prune", "statistics"]

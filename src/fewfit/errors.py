"""Every error and warning that fewfit raises on purpose.

One tree with one root, so that ``except FewfitError`` catches all of it::

    FewfitError
    ├── InputError          data, labels, template or argument is wrong   (also a ValueError)
    ├── CapabilityError     the frozen model cannot give what a method needs
    ├── CalibrationError    the prior over labels cannot be removed this way
    ├── ModelError          the frozen model could not be loaded or did not answer
    │   └── DivergenceError      ... or a training beside it lost its way
    ├── BudgetExceededError the query budget is used up; what was answered is stored
    ├── MissingExtraError   an optional dependency is not installed       (also an ImportError)
    ├── StoreError          the observation store cannot be used
    └── ArtifactError       a saved task is damaged or foreign
        └── ModelMismatchError   ... was fitted on another frozen model

Each message says what is wrong, where, and what to do.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Return one line, with what a terminal or a file cannot hold written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c in "\n\r\t" else c.encode("unicode_escape").decode()
        for c in text
    )


class FewfitError(Exception):
    """Root of all errors raised on purpose; ``exit_code`` is the status of the command line.

    What it says is one printable line, whatever a file, a server or a label holds.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class InputError(FewfitError, ValueError):
    """Data, labels, template or an argument is wrong; raised before any query is paid for."""

    exit_code = 2


class CapabilityError(FewfitError):
    """A method requires something of the frozen model that this model does not give."""

    exit_code = 2


class CalibrationError(FewfitError, ArithmeticError):
    """The calibration is undefined for these content-free scores."""

    exit_code = 2


class ModelError(FewfitError, RuntimeError):
    """The frozen model could not be found, verified or loaded, or gave no usable answer."""

    exit_code = 3


class DivergenceError(ModelError):
    """A training lost its way: its loss, or the gradient of it, is not finite."""


class BudgetExceededError(FewfitError, RuntimeError):
    """The query budget does not suffice; raised before the query that would exceed it.

    Parameters
    ----------
    message : str
    answered, left : int
        How many prompts were answered, and how many were not, of those that were to be asked.
    """

    exit_code = 6

    def __init__(self, message: str = "", answered: int = 0, left: int = 0) -> None:
        super().__init__(message)
        self.answered = answered
        self.left = left


class MissingExtraError(FewfitError, ImportError):
    """An optional dependency is missing; the message is the ``pip`` command to run."""

    exit_code = 3


class ArtifactError(FewfitError, ValueError):
    """A saved task is incomplete, damaged, tampered with, or not from fewfit."""

    exit_code = 4


class ModelMismatchError(ArtifactError):
    """The artifact was fitted on another frozen model than the one at hand."""


class StoreError(FewfitError, OSError):
    """The observation store cannot be read or written."""

    exit_code = 5


class FewfitWarning(UserWarning):
    """Root of all warnings, each one printable line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class InputWarning(FewfitWarning):
    """Data is taken as it stands, although it looks like a mistake."""


class TruncationWarning(FewfitWarning):
    """Some texts were longer than the model reads and were cut."""


class LabelWordWarning(FewfitWarning):
    """Label words do not tell classes apart: two are the same to the model, or all are numbers."""


class ModelWarning(FewfitWarning):
    """The frozen model answered only in part: rows without an answer, scores that are bounds."""


class StoreWarning(FewfitWarning):
    """Something in the store was damaged and was asked again."""

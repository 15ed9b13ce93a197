"""Parameters of estimators and calibrations: checked against what each declares, found by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from fewfit.errors import InputError

T = TypeVar("T")
_LENGTH = 300  # of a message, which shows the value that was given


def check_parameters(estimator: Any) -> None:
    """Check the parameters of an estimator, or the fields of a dataclass, before they are used.

    What is allowed stands in its class attribute ``_parameter_constraints``, in scikit-learn's
    form: parameter -> list of ``Interval(...)``, ``StrOptions(...)``, types, ``"boolean"``,
    ``"random_state"``, ``None`` and so on. What does not stand there is not checked.

    Raises
    ------
    InputError
        With the parameter, its owner, what is allowed and what was given.
    """
    constraints: dict[str, Any] = getattr(estimator, "_parameter_constraints", {})
    if is_dataclass(estimator):
        given = {field.name: getattr(estimator, field.name) for field in fields(estimator)}
    else:
        given = estimator.get_params(deep=False)
    owner = type(estimator).__name__
    for name, value in given.items():
        allowed = constraints.get(name, "no_validation")
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()  # so that a message shows a plain value
        if isinstance(value, bool) and allowed != "no_validation" and not _takes_bool(allowed):
            raise InputError(f"{name}: {owner} takes no {value} here, but a value of its own kind")
        try:
            validate_parameter_constraints({name: allowed}, {name: value}, owner)
        except InvalidParameterError as error:
            text = " ".join(str(error).split())
            raise InputError(f"{name}: {text[:_LENGTH]}{'...' * (len(text) > _LENGTH)}") from None


def look_up(name: Any, table: Mapping[str, T], *, parameter: str) -> T:
    """Return what stands under a name in a table.

    Raises
    ------
    InputError
        If nothing does, with the names that are near and all that there are.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    raise InputError(
        f"{parameter}: {name!r} is not one of {sorted(table)}{did_you_mean(name, table)}"
    )


def did_you_mean(name: Any, known: Mapping[str, Any]) -> str:
    """Return a question to append to a message, or nothing where no known name is near."""
    if not isinstance(name, str):
        return ""
    plain = {key.casefold().replace("_", "-"): key for key in known}
    near = difflib.get_close_matches(name.casefold().replace("_", "-"), plain, n=1, cutoff=0.6)
    return f"; did you mean {plain[near[0]]!r}?" if near else ""


def _takes_bool(allowed: list[Any]) -> bool:
    return any((isinstance(kind, str) and kind == "boolean") or kind is bool for kind in allowed)

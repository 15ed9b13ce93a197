"""Parameters of estimators and calibrations: checked against what each declares, found by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.utils._param_validation import (
    InvalidParameterError,
    StrOptions,
    validate_parameter_constraints,
)

from fewfit.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_LENGTH = 300  # of a message, which shows the value that was given
_SPELLED = {"true": "true", "yes": "true", "false": "false", "no": "false", "none": "null"}


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
        names = [field.name for field in fields(estimator)]
    elif hasattr(estimator, "get_params"):
        names = list(estimator.get_params(deep=False))
    else:
        names = list(constraints)
    given = {name: getattr(estimator, name) for name in names}
    check_values(type(estimator).__name__, constraints, given)


def check_values(owner: str, constraints: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Check values against constraints, as :func:`check_parameters` does, for a function too.

    Parameters
    ----------
    owner : str
        Whose they are, for the message.
    constraints : mapping of str to list
    given : mapping
        Name -> value.
    """
    for name, value in given.items():
        allowed = constraints.get(name, "no_validation")
        value = _plain(value)
        if isinstance(value, bool) and allowed != "no_validation" and not _takes_bool(allowed):
            raise InputError(f"{name}: {owner} takes no {value} here, but a value of its own kind")
        try:
            validate_parameter_constraints({name: allowed}, {name: value}, owner)
        except InvalidParameterError as error:
            text = " ".join(str(error).split())
            raise InputError(f"{name}: {text[:_LENGTH]}{'...' * (len(text) > _LENGTH)}") from None


def checked(constraints: Mapping[str, Any]) -> Callable[[F], F]:
    """Check the arguments of a function before it is entered, and keep what they may be.

    Parameters
    ----------
    constraints : mapping of str to list
        Kept as the function's attribute ``constraints``.
    """

    def attach(function: F) -> F:
        parameters = signature(function)

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            check_values(function.__name__, constraints, parameters.bind(*args, **kwargs).arguments)
            return function(*args, **kwargs)

        called.constraints = constraints  # pyright: ignore[reportAttributeAccessIssue]
        return cast(F, called)

    return attach


def make(kind: type[T], options: Mapping[str, Any], *, who: str) -> T:
    """Return a method with these parameters, which may be text, as on a command line.

    Text is read as the parameter's constraints say: words that it knows stay words, anything else
    is read as JSON, so that ``"0.5"`` is a number and ``'["N/A", ""]'`` a tuple of two texts.

    Parameters
    ----------
    kind : type
        A decoder or a calibration.
    options : mapping of str to value
    who : str
        Its name, for the messages.

    Raises
    ------
    InputError
        If it has no such parameter, with the nearest one that it has; or for a value that is not
        allowed.
    """
    constraints: dict[str, Any] = getattr(kind, "_parameter_constraints", {})
    known = dict.fromkeys(signature(kind).parameters)
    for name in options:
        if name not in known:
            has = f"has {', '.join(known)}" if known else "has none"
            raise InputError(f"option: {who} has no {name!r}; it {has}{did_you_mean(name, known)}")
    made = kind(**{name: _read(value, constraints.get(name)) for name, value in options.items()})
    check_parameters(made)
    return made


def _read(value: Any, allowed: Any) -> Any:
    """Return a value that may be text as what it means."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    kinds = allowed if isinstance(allowed, list) else [allowed]
    if str in kinds or any(isinstance(k, StrOptions) and value in k.options for k in kinds):
        return value
    try:
        found = json.loads(_SPELLED.get(value.strip().casefold(), value))
    except ValueError:
        return value
    return tuple(found) if isinstance(found, list) else found


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


def _plain(value: Any) -> Any:
    """Return a value of numpy, or what holds such values, as Python's own, for messages."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_plain(item) for item in value)
    if type(value) is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _takes_bool(allowed: list[Any]) -> bool:
    return any((isinstance(kind, str) and kind == "boolean") or kind is bool for kind in allowed)

"""What is declared of a parameter is what is taken, and the message shows plain values."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.errors import InputError
from fewfit.parameters import check_parameters, look_up


class Head(BaseEstimator):
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "C": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "steps": [Interval(Integral, 1, None, closed="left"), None],
        "warm": ["boolean"],
    }

    def __init__(self, C: Any = 1.0, steps: Any = None, warm: Any = False, other: Any = None):
        self.C, self.steps, self.warm, self.other = C, steps, warm, other


@dataclass(frozen=True)
class Prior:
    gamma: float = 1.0
    name = "prior"
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "gamma": [Interval(Real, 0, None, closed="left")]
    }


@pytest.mark.parametrize(
    "given",
    [
        Head(),
        Head(C=np.float32(0.5), steps=np.int64(3), warm=np.True_, other=object()),
        Head(C="auto", steps=1, warm=True),
        Prior(0.0),
        Prior(np.float64(2)),
    ],
)
def test_what_is_declared_is_taken(given):
    check_parameters(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Head(C=0), "C: The 'C' parameter of Head must be a float in the range"),
        (Head(C=-1e-300), "Got -1e-300 instead"),
        (Head(C=np.float64("nan")), "Got nan instead"),
        (Head(C="Auto"), "Got 'Auto' instead"),
        (Head(C=True), "C: Head takes no True here"),
        (Head(C=np.array([1.0])), r"Got \[1.0\] instead"),
        (Head(C=[np.float64(1)]), r"Got \[1.0\] instead"),
        (Head(C={"a": (np.int64(1),)}), r"Got \{'a': \(1,\)\} instead"),
        (Head(steps=0), "steps: .* Got 0 instead"),
        (Head(steps=2.0), "Got 2.0 instead"),
        (Head(steps=False), "steps: Head takes no False"),
        (Head(warm="yes"), "warm: .*Got 'yes'"),
        (Prior(-0.1), "gamma: .*Prior.*Got -0.1"),
        (Prior(None), "Got None"),
    ],
)
def test_what_lies_just_outside_is_refused_in_plain_words(given, message):
    with pytest.raises(InputError, match=message) as error:
        check_parameters(given)
    assert "np." not in str(error.value)
    assert "array(" not in str(error.value)


def test_a_name_is_found_or_the_nearest_is_asked_about():
    table = {"dect": 1, "linear-probe": 2}
    assert look_up("dect", table, parameter="decoder") == 1
    for near, meant in {
        "DecT": "dect",
        "linear_probe": "linear-probe",
        "linaer-probe": "linear-probe",
    }.items():
        with pytest.raises(InputError, match=f"decoder: .* did you mean '{meant}'"):
            look_up(near, table, parameter="decoder")
    with pytest.raises(InputError, match=r"is not one of \['dect', 'linear-probe'\]$"):
        look_up(["dect"], table, parameter="decoder")

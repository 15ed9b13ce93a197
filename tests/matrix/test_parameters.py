"""What lies just outside is refused, of every parameter of every method: one table, no gaps."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from fewfit.calibration import CALIBRATIONS, make_calibration
from fewfit.decoders import DECODERS, MultiLabel, make_decoder
from fewfit.errors import InputError
from fewfit.prompts import InContext, Verbalizer
from fewfit.prompts.word_lists import drop_improbable, expand_words, retrieve_words
from fewfit.searchers import SEARCHERS
from tests.conftest import task_arrays

NAN, INF = float("nan"), float("inf")
_KINDS = [True, False, "1", None, NAN, INF, -INF, [1], np.array([1.0, 2.0]), 1j]

COUNT = ([1, 10**6, np.int64(3)], [*_KINDS, 0, -1, 1.0, 1.5, "many"])
COUNT_OR_0 = ([0, 1, 10**6], [*_KINDS, -1, 0.0, 1.5])
MAYBE_COUNT = ([None, 1, 7], [k for k in _KINDS if k is not None] + [0, -1, 2.0])
POSITIVE = ([1e-300, 1, 0.5, 1e300, np.float32(2)], [*_KINDS, 0, 0.0, -1e-300, -1])
FINITE = [0, -1.5, 1e300, np.float64(0.5)]
YES_NO = ([True, False, np.True_], [0, 1, "yes", None, NAN, [True]])
PRIOR = (["balanced", "frequencies"], [*_KINDS, "Frequencies", "", "odd"])
SEED = ([0, 2**32 - 1, None, np.random.RandomState(0)], [-1, 2**32, 0.5, "0", True, NAN])
WHOLE_SEED = ([0, 2**32 - 1], [*_KINDS, -1, 2**32, 0.5])

BOUNDS: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "dect": {
        "proto_dim": COUNT,
        "lam": (["1/n", *FINITE], [*_KINDS, "1/k", "n"]),
        "normalize": YES_NO,
        "lr": POSITIVE,
        "n_steps": COUNT_OR_0,
        "random_state": SEED,
    },
    "ipet": {
        "n_views": MAYBE_COUNT,
        "generations": COUNT_OR_0,
        "factor": ([1, 1.0, 5.5], [*_KINDS, 0.999, 0, -1]),
        "share": ([1e-9, 1, 0.25], [*_KINDS, 0, 0.0, 1.0001, -0.1]),
        "temperature": POSITIVE,
        "C": POSITIVE,
        "random_state": SEED,
    },
    "knn-prompting": {"k": COUNT},
    "linear-probe": {"prior": PRIOR},
    "mpd": {
        "n_views": MAYBE_COUNT,
        "n_prototypes": COUNT,
        "proto_dim": COUNT,
        "beta": (["1/n", *FINITE], [*_KINDS, "1/k"]),
        "epsilon": POSITIVE,
        "temperature": POSITIVE,
        "joint_loss": YES_NO,
        "lr": POSITIVE,
        "n_steps": COUNT_OR_0,
        "random_state": SEED,
    },
    "nearest-mean": {},
    "offset-regression": {"prior": PRIOR},
    "paraphrase-mean": {},
    "pet": {"weights": (["accuracy", "uniform"], [*_KINDS, "Accuracy", "", "odd"])},
    "prompt-boosting": {
        "n_views": MAYBE_COUNT,
        "n_rounds": COUNT,
        "n_tokens": MAYBE_COUNT,
        "max_combinations": COUNT,
        "random_state": SEED,
    },
    "protoverb": {
        "proto_dim": COUNT,
        "lr": POSITIVE,
        "n_steps": COUNT_OR_0,
        "ensemble": YES_NO,
        "random_state": SEED,
    },
    "soft-verbalizer": {"spread": POSITIVE},
    "zero-shot": {},
    "multi-label": {
        "C": POSITIVE,
        "pos_weight": (["balanced", 0.5, 3], [*_KINDS, 0, -1, "odd"]),
        "threshold": (["f1", 0, 1, 0.5], [*_KINDS, -0.001, 1.001, "f2"]),
    },
}
_NO_TEXTS = [k for k in _KINDS if not isinstance(k, list)]
_NO_TEXTS += ["N/A", "", 3, (1,), ("a", None), [2]]
SOME_TEXTS = ([("",), ("N/A", "", "[MASK]")], [*_NO_TEXTS, (), []])
NO_TEXTS = ([()], [*_NO_TEXTS, *SOME_TEXTS[0]])  # they would be asked about in vain
CALIBRATION_BOUNDS: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "none": {"content_free": NO_TEXTS},
    "contextual": {"content_free": SOME_TEXTS},
    "domain-context": {"content_free": NO_TEXTS, "n_documents": COUNT, "seed": WHOLE_SEED},
    "batch": {"content_free": NO_TEXTS, "strength": (["labels", *FINITE], [*_KINDS, "label"])},
    "pmi": {
        "content_free": SOME_TEXTS,
        "premise": (["", "It is {mask}."], [0, None, True, NAN, "no slot", "{mask} {mask}", ["a"]]),
    },
    "ratio": {"content_free": SOME_TEXTS},
}
TABLES = {**DECODERS, "multi-label": MultiLabel}


def cases(bounds, outside: bool):
    return [
        pytest.param(who, name, value, id=f"{who}-{name}-{value!r:.20}")
        for who, parameters in bounds.items()
        for name, both in parameters.items()
        for value in both[outside]
    ]


def test_no_parameter_is_left_out():
    for table, bounds in ((TABLES, BOUNDS), (CALIBRATIONS, CALIBRATION_BOUNDS)):
        assert set(table) == set(bounds)
        for name, kind in table.items():
            assert set(inspect.signature(kind).parameters) == set(bounds[name]), name


@pytest.mark.parametrize(("who", "name", "value"), cases(BOUNDS, True))
def test_a_decoder_refuses_to_fit(who, name, value):
    X, y, scores = task_arrays()
    decoder = TABLES[who](**{name: value})  # scikit-learn's convention: fit checks
    given = {} if who == "multi-label" else {"scores": scores}
    with pytest.raises(InputError, match=f"^{name}: ") as error:
        decoder.fit(X, y, **given)
    check_message(str(error.value))
    if who != "multi-label" and not isinstance(value, str | list | np.ndarray):
        with pytest.raises(InputError, match=f"^{name}: "):
            make_decoder(who, options={name: value})


@pytest.mark.parametrize(("who", "name", "value"), cases(BOUNDS, False))
def test_a_decoder_takes_what_lies_on_the_bound(who, name, value):
    from fewfit.parameters import check_parameters

    check_parameters(TABLES[who](**{name: value}))


@pytest.mark.parametrize(("who", "name", "value"), cases(CALIBRATION_BOUNDS, True))
def test_a_calibration_is_not_made(who, name, value):
    with pytest.raises(InputError, match=f"^{name}: ") as error:
        CALIBRATIONS[who](**{name: value})
    check_message(str(error.value))


@pytest.mark.parametrize(("who", "name", "value"), cases(CALIBRATION_BOUNDS, False))
def test_a_calibration_takes_what_lies_on_the_bound(who, name, value):
    made = make_calibration(who, options={name: value})
    assert getattr(made, name) == value


def test_every_option_of_a_searcher_is_checked():
    for name, search in SEARCHERS.items():
        parameters = inspect.signature(search).parameters.values()
        options = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "view"}
        options |= {p.name for p in parameters} & {"vocabulary"}
        assert options == set(search.constraints), name


VIEW_BOUNDS = {
    "n": COUNT_OR_0,
    "choose": (["balanced", "random", "nearest"], [*_KINDS, "Balanced"]),
    "separator": (["", " "], [0, None, True, NAN, ["a"]]),
    "turns": ([True, False], [2, None, "yes", NAN]),
    "max_words": ([None, *COUNT_OR_0[0]], [k for k in COUNT_OR_0[1] if k is not None]),
    "seed": ([0, 7], [*_KINDS, -1, 0.5]),
    "demonstrations": ([None, [], [({"text": "a"}, "b")]], [0, True, "ab", NAN]),
}


@pytest.mark.parametrize(("who", "name", "value"), cases({"in-context": VIEW_BOUNDS}, True))
def test_a_view_is_not_made(who, name, value):
    with pytest.raises(InputError, match=f"^{name}: ") as error:
        InContext("{text} {mask}", **{name: value})
    check_message(str(error.value))


@pytest.mark.parametrize(("who", "name", "value"), cases({"in-context": VIEW_BOUNDS}, False))
def test_a_view_takes_what_lies_on_the_bound(who, name, value):
    assert getattr(InContext("{text} {mask}", **{name: value}), name) == value
    assert set(VIEW_BOUNDS) | {"template"} == set(inspect.signature(InContext).parameters)


@pytest.mark.parametrize(
    "weight", [-1e-9, NAN, INF, -INF, "1", None, True, [1.0], np.array([1.0]), 1j, 0.0]
)
def test_a_weight_of_a_label_word_is_a_number_from_0_on(weight):
    with pytest.raises(InputError, match="labels: ") as error:
        Verbalizer({"a": {"red": weight}, "b": "blue"})
    check_message(str(error.value))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (lambda **o: retrieve_words({"a": "x", "b": "y"}, ["z"], np.ones((2, 1)), **o), "n"),
        (lambda **o: expand_words({"a": "x", "b": "y"}, ["x", "y"], np.eye(2), **o), "n"),
    ],
)
def test_word_lists_are_of_at_least_one_word(call, wrong):
    for value in COUNT[1]:
        with pytest.raises(InputError, match=f"^{wrong}: "):
            call(**{wrong: value})
    for value in (NAN, -0.01, 1.01, True, "0.5", None):
        with pytest.raises(InputError, match="fraction: "):
            drop_improbable({"a": {"x": 1.0}}, ["x"], np.ones(1), fraction=value)


def check_message(text: str) -> None:
    assert "np." not in text
    assert "array(" not in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lam": "0.5"}, {"lam": 0.5}),
        ({"lam": "1/n"}, {"lam": "1/n"}),
        ({"lam": "-1e-3", "proto_dim": "32"}, {"lam": -0.001, "proto_dim": 32}),
        ({"normalize": "False"}, {"normalize": False}),
        ({"normalize": "yes", "random_state": "None"}, {"normalize": True, "random_state": None}),
        ({"random_state": "7", "n_steps": 0}, {"random_state": 7, "n_steps": 0}),
    ],
)
def test_options_in_text_are_read_as_the_parameter_says(options, expected):
    found = make_decoder("dect", options=options).get_params()
    assert {name: found[name] for name in expected} == expected
    assert all(type(found[name]) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("make", "name", "options", "message"),
    [
        (make_decoder, "dect", {"proto_dims": "3"}, "no 'proto_dims'.* did you mean 'proto_dim'"),
        (make_decoder, "dect", {"lam": "1/k"}, "lam: .* Got '1/k'"),
        (make_decoder, "dect", {"proto_dim": "12.5"}, "proto_dim: .* Got 12.5"),
        (make_decoder, "dect", {"lam": "nan"}, "lam: .* Got 'nan'"),
        (make_decoder, "dect", {"lam": "NaN"}, "lam: .* Got nan"),
        (make_decoder, "zero-shot", {"lam": "1"}, "decoder 'zero-shot' has no 'lam'; it has none"),
        (make_decoder, "dekt", {"lam": "1"}, "did you mean 'dect'"),
        (make_decoder, None, {"lam": "1"}, "OffsetLogisticRegression, has no 'lam'"),
        (make_decoder, DECODERS["dect"](), {"lam": "1"}, "with the name of a decoder"),
        (make_calibration, "batch", {"strenght": "1"}, "did you mean 'strength'"),
        (make_calibration, "pmi", {"premise": "none"}, r"exactly one \{mask\}"),
        (make_calibration, "contextual", {"content_free": "[]"}, "at least one text"),
        (make_calibration, "contextual", {"content_free": "N/A"}, "content_free: "),
    ],
)
def test_options_that_are_none_are_refused(make, name, options, message):
    with pytest.raises(InputError, match=message):
        make(name, options=options)


def test_options_of_calibrations_in_text():
    assert make_calibration("batch", options={"strength": "0.5"}).strength == 0.5
    assert make_calibration("batch", options={"strength": "labels"}).strength == "labels"
    assert make_calibration("pmi", options={"premise": "1 {mask}"}).premise == "1 {mask}"
    several = make_calibration("contextual", options={"content_free": '["N/A", "", "[MASK]"]'})
    assert several.content_free == ("N/A", "", "[MASK]")

"""Specs: the same model again, or refused."""

from __future__ import annotations

import pickle

import pytest

from fewfit import load_model
from fewfit.errors import InputError
from fewfit.models.remote import DIALECTS


def test_a_spec_makes_the_same_model_again():
    spec = "vllm:http://host:8000?connections=64&timeout=5.0&model=a%2Fb&hidden=http%3A%2F%2Fh2"
    model = load_model(spec)
    again = load_model(model.spec)
    assert again.identity == model.identity
    assert again.spec == model.spec
    assert pickle.loads(pickle.dumps(model)).spec == model.spec
    assert model.options.connections == 64


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("openai:http://h/v1", "which model"),
        ("openai:http://h/v1?model=m&model=n", "twice"),
        ("openai:http://h/v1?model=m&colour=red", "no option"),
        ("openai:http://h/v1?model=m&top_k=x", "is a whole number"),
        ("openai:http://h/v1?model=m&connections=0", "at least"),
        ("vllm:http://h?model=m&top_k=5", "no option 'top_k'"),
        ("sglang:http://h?hidden=http://g", "no option 'hidden'"),
        ("telepathy:http://h", "not known"),
        ("embedded:x", "no options"),
    ],
)
def test_specs_that_are_refused(spec, says):
    with pytest.raises(InputError, match=says):
        load_model(spec)


@pytest.mark.parametrize("value", [2.5, "2.5", True, float("nan"), None])
def test_a_number_that_is_not_whole_is_refused_and_not_cut(value):
    with pytest.raises(InputError, match="'connections' is a whole number"):
        DIALECTS["openai"]("http://h", model="m", connections=value)


def test_a_whole_number_may_be_one_of_floating_point():
    model = DIALECTS["openai"]("http://h", model="m", connections=2.0)
    assert type(model.options.connections) is int


def test_a_fingerprint_takes_the_place_of_the_address():
    first = load_model("llamacpp:http://a:1?fingerprint=q4-7f3a")
    moved = load_model("llamacpp:http://b:2?fingerprint=q4-7f3a")
    other = load_model("llamacpp:http://b:2")
    assert first.identity == moved.identity != other.identity

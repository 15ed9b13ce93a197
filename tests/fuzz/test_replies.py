"""Every dialect's right reply, changed in a few places: read, or that row's failure, in words."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

from fewfit import load_model
from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.models.base import Check
from fewfit.observations import Status
from fewfit.prompts import Template
from tests.fake_server import FakeServer, Reply
from tests.fuzz import CASES
from tests.fuzz.mutations import spoiled, text_of

WORDS = ("good", "bad")
TEMPLATE = Template("{text} It was {mask}.")
DIALECTS = ("openai", "openai-chat", "vllm", "sglang", "llamacpp", "ollama", "embeddings", "tei")
SECOND = ("openai", "openai-chat", "vllm", "llamacpp", "ollama")


@pytest.mark.parametrize("scheme", DIALECTS)
def test_a_spoiled_reply_is_that_rows_failure(scheme):
    rng = random.Random(f"replies of {scheme}")
    spoil = [False]
    last = [""]
    said: list[str] = []

    def script(request, before):
        if not spoil[0] or rng.random() < 0.3:
            return None
        last[0] = text_of(spoiled(request.honest.body, rng, rng.choice((1, 1, 1, 2, 4))))
        return Reply(raw=last[0].encode("utf-8", "surrogatepass"))

    outcomes = {"answered": 0, "failed": 0, "stopped": 0}
    with FakeServer(script) as server:
        options = "retries=0&backoff=0&timeout=20&top_k=100" if scheme in SECOND else "retries=0"
        options = options.replace("&top_k=100", "" if scheme == "vllm" else "&top_k=100")
        hidden = f"&hidden={server.url}" if scheme in SECOND else ""
        prompt = TEMPLATE.render({"text": "a text"})
        honest = load_model(f"{scheme}:{server.url}?model=toy&{options}{hidden}")
        right = honest.observe([prompt], WORDS)
        spoil[0] = True
        for case in range(max(CASES // len(DIALECTS), 20)):
            model = load_model(f"{scheme}:{server.url}?model=toy&{options}{hidden}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ModelWarning)
                try:
                    if case % 10 == 0:
                        for check in model.check_fields(prompt, WORDS):
                            assert isinstance(check, Check)
                            assert (check.outcome + check.detail).isprintable(), last
                        continue
                    answers = model.observe([prompt], WORDS)
                except (ModelError, InputError) as error:
                    said.append(str(error))
                    outcomes["stopped"] += 1
                    continue
            if answers.status[0] == Status.FAILED:
                assert answers.scores is None or np.isnan(answers.scores).all(), last
                outcomes["failed"] += 1
                continue
            outcomes["answered"] += 1
            assert np.isfinite(answers.scores).all(), last
            if scheme not in ("embeddings", "tei"):
                assert (answers.scores <= 0).all(), last
                assert np.exp(answers.scores[~_censored(answers)]).sum() < 1.02, last
                assert not _censored(answers).all(), last
            assert np.isfinite(answers.hidden).all(), last
            assert 0 < np.linalg.norm(answers.hidden) < np.inf, last
            assert answers.hidden.shape[1] > 0
    assert np.isfinite(right.scores).all()
    assert all(map(str.isprintable, said))
    if CASES >= 2000:  # the mutations are neither all harmless nor all fatal
        assert min(outcomes["answered"], outcomes["failed"] + outcomes["stopped"]) > 0


def _censored(answers):
    return np.zeros_like(answers.scores, bool) if answers.censored is None else answers.censored


@pytest.mark.parametrize("scheme", ["embeddings", "tei", "sglang"])
@pytest.mark.parametrize(
    "odd",
    [1e20, -1e20, 1e-20, 0.0, None, True, "1", "@@LONG@@", float("nan"), float("inf"), [1.0], {}],
    ids=str,
)
def test_a_vector_that_has_no_direction_is_that_rows_failure(scheme, odd):
    """Huge, tiny and odd numbers have no cosine that means something; the other rows have."""

    def script(request, before):
        if "BAD" not in request.text or request.path == "/tokenize":
            return None
        vector = [odd if i % 2 else 0.0 for i in range(12)]
        body = {
            "embeddings": {"model": "toy", "data": [{"index": 0, "embedding": vector}]},
            "tei": [vector],
            "sglang": {},
        }[scheme]
        if scheme == "sglang":
            body = {"meta_info": {**request.honest.body["meta_info"], "hidden_states": [vector]}}
        return Reply(raw=text_of(body).encode())

    with FakeServer(script) as server:
        model = load_model(f"{scheme}:{server.url}?model=toy&retries=0")
        rows = [TEMPLATE.render({"text": text}) for text in ("one", "BAD", "two")]
        with pytest.warns(ModelWarning, match="1 of 3"):
            answers = model.observe(rows, WORDS)
    assert [s == Status.FAILED for s in answers.status] == [False, True, False]
    assert np.isnan(answers.scores[1]).all()
    assert np.isfinite(answers.scores[[0, 2]]).all()

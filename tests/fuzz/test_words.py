"""Answers in words that nobody foresaw: a label is what was said, or there is none."""

from __future__ import annotations

import json
import random
import unicodedata
import warnings

import numpy as np
import pytest

from fewfit import load_model
from fewfit.errors import ModelError, ModelWarning
from fewfit.models.remote.words import Labels, Unusable
from fewfit.observations import Status
from fewfit.prompts import Template
from tests.fake_server import FakeServer, Reply
from tests.fuzz import CASES
from tests.fuzz.mutations import spoiled, text_of

WORDS = ("good", "bad", "New York", "goodness")
PROMPT = Template("{text} It was {mask}.").render({"text": "a text"})
SCHEMES = {
    "openai-chat": ("&answers=text", "&answers=text&output=tool", "&answers=text&output=plain"),
    "anthropic": ("", "&output=plain"),
    "systemone": ("",),
    "decisions": ("",),
}
PIECES = [
    *WORDS,
    *("GOOD", "Bad", "new  york", "york", "goo", "badly", "not ", "un", "gut", "плохо", "好"),
    *('{"label": "', '"}', '{"label":', "}", "```json", "```", '"', "'", "**", "(", ")", "."),
    *(" ", "\n", ",", ":", "-", "~", "!", "/", "\u200b", "\u202e", "\x00", "…", "</think>"),
    *("<think>", "[THINK]", "[/THINK]", "<|channel|>final<|message|>", "It was ", "label"),
    *("I cannot help with that", "The answer is", "good or bad", "{}", "[]", "null", "1"),
]


def says(text: str) -> str | None:
    """The word that a text is, by another way than the code's: letters and signs alone count."""
    text = text.rpartition("<|channel|>final<|message|>")[2]
    for close in ("</think>", "[/THINK]"):
        text = text.rpartition(close)[2]
    text = unicodedata.normalize("NFKC", text).casefold()
    for frame in ("```json", "```", '"label"', "it was ", "{", "}"):
        text = text.replace(frame, " ")
    bare = " ".join("".join(c if c.isalpha() else " " for c in text).split())
    return next((word for word in WORDS if word.casefold() == bare), None)


def test_no_label_is_guessed_from_pieces():
    rng, labels = random.Random(15), Labels(WORDS, " It was ")
    found = 0
    for _ in range(max(CASES, 3000)):
        text = "".join(rng.choice(PIECES) for _ in range(rng.choice((1, 1, 2, 3, 4, 6))))
        try:
            word = WORDS[labels.find(text)]
        except Unusable:
            continue
        found += 1
        assert word == says(text), text
    assert found > 0


@pytest.mark.parametrize(
    ("scheme", "options"), [(scheme, o) for scheme, own in SCHEMES.items() for o in own]
)
def test_a_spoiled_reply_names_what_it_says_or_nothing(scheme, options):
    rng = random.Random(f"words of {scheme} {options}")
    body, spoil = [None], [False]
    said: list[str] = []

    def script(request, before):
        if not spoil[0]:
            return None
        body[0] = spoiled(request.honest.body, rng, rng.choice((1, 1, 1, 2, 4)))
        return Reply(raw=text_of(body[0]).encode("utf-8", "surrogatepass"))

    outcomes = {"answered": 0, "failed": 0, "stopped": 0}
    with FakeServer(script) as server:
        spec = f"{scheme}:{server.url}?model=toy&retries=0&backoff=0&timeout=20{options}"
        right = int(load_model(spec).observe([PROMPT], WORDS).scores[0].argmax())
        spoil[0] = True
        for case in range(max(CASES // 7, 20)):
            model = load_model(spec)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ModelWarning)
                try:
                    if case % 10 == 0:
                        for check in model.check_fields(PROMPT, WORDS):
                            assert (check.outcome + check.detail).isprintable()
                        continue
                    answers = model.observe([PROMPT], WORDS)
                except ModelError as error:
                    said.append(str(error))
                    outcomes["stopped"] += 1
                    continue
            if answers.status[0] == Status.FAILED:
                assert answers.scores is None or np.isnan(answers.scores).all()
                outcomes["failed"] += 1
                continue
            outcomes["answered"] += 1
            assert np.exp(answers.scores[0]).sum() == pytest.approx(1, abs=2e-2)
            label = int(answers.scores[0].argmax())
            if scheme not in ("systemone", "decisions"):
                whole = json.dumps(body[0], ensure_ascii=False)
                assert label == right or WORDS[label] in whole, body
    assert all(map(str.isprintable, said))
    if CASES >= 2000:
        assert min(outcomes["answered"], outcomes["failed"] + outcomes["stopped"]) > 0

"""A row has a label only if one of its label words was listed, whatever else a server lists.

``FEWFIT_FUZZ`` sets the number of random listings.
"""

from __future__ import annotations

import os
import random
import warnings

import numpy as np
import pytest

from fewfit import FewShotClassifier, ZeroShot
from fewfit.errors import ModelWarning
from tests.fake_server import FakeServer, edited
from tests.models.remote.test_listing import LISTS, listing

CASES = int(os.environ.get("FEWFIT_FUZZ", "200"))
LABELS = {"neg": ["bad", "poor"], "pos": "good", "odd": "schön"}
SPELLED = {
    "bad": ["bad", " bad", "Ġbad", "▁bad"],
    "poor": ["poor", " poor", "▁poor"],
    "good": ["good", " good", "Ġgood"],
    "schön": ["schön", " schön", "ĠschÃ¶n", "▁schön"],
}
OTHERS = [
    "Good", "BAD", "goo", "goods", "ba", "<think>", "<0x67>", "", " ", "\n", "▁", "Ġ", "�", "sch",
    "SCHÖN", "token_id:7", "good.", "\tgood", "g ood", "Ġ Ġ", "null", "-1", "𝔤𝔬𝔬𝔡",
]  # fmt: skip


def listed(rng: random.Random) -> tuple[dict[str, float], dict[str, float]]:
    """Random tokens with probabilities, and the probability of each label word among them."""
    tokens = rng.sample(OTHERS, rng.randint(0, 4))
    words = rng.sample(list(SPELLED), rng.choice([0, 0, 1, 1, 2, 4]))
    tokens += [rng.choice(SPELLED[word]) for word in words]
    tokens = tokens or ["x"]
    rng.shuffle(tokens)
    shares = np.random.default_rng(rng.getrandbits(32)).dirichlet([0.3] * (len(tokens) + 1))
    shares = np.maximum(shares, 1e-12)
    found = dict(zip(tokens, (shares / shares.sum()).tolist(), strict=False))
    return found, {w: sum(found.get(s, 0.0) for s in SPELLED[w]) for w in words}


@pytest.mark.parametrize("scheme", ["openai", "openai-chat", "ollama"])
def test_a_row_has_a_label_only_if_one_of_its_label_words_was_listed(scheme):
    rng = random.Random(6)
    cases = [({"good": 0.5}, {"good": 0.5}), *(listed(rng) for _ in range(CASES // 3))]

    def script(request, before):
        number = request.text.partition(" ")[0]
        tokens = cases[int(number)][0] if number.isdigit() else {"bad": 0.3, "good": 0.3}
        return edited(request.honest, *LISTS[scheme], to=listing(scheme, tokens))

    with FakeServer(script) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        clf = FewShotClassifier(
            f"{scheme}:{server.url}?model=toy&connections=4&retries=0",
            template="{text} It was {mask}.",
            labels=LABELS,
            decoder=ZeroShot(),
            calibration="none",
            store=None,
            errors="nan",
            max_censored=1.0,
        ).fit(["a", "b", "c"], list(LABELS))
        clf.predict_proba(["0"])  # a label word is said now and then
        answers = clf.observe([str(i) for i in range(len(cases))])
        proba = clf.decode(answers)
    names = list(clf.classes_)
    for (tokens, words), p, reason in zip(cases, proba, clf.task_.failures(answers), strict=True):
        assert np.isnan(p).all() == (not words), (tokens, words)
        assert bool(reason) == (not words), (tokens, reason)
        if words:
            best = max(words, key=lambda word: words[word])
            owner = next(c for c, spelled in LABELS.items() if best in spelled)
            assert p[names.index(owner)] >= p.max() - 1e-6, (tokens, p)

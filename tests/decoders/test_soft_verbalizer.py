"""SciPrompt's soft verbalizer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, check_grad

from fewfit import FewShotClassifier, ZeroShot
from fewfit.decoders import (
    SoftVerbalizer,
    soft_verbalizer,
)
from fewfit.errors import InputError
from fewfit.models import FakeModel

WEIGHTED = {"neg": {"bad": 1.0, "awful": 0.5}, "pos": {"good": 1.0, "fine": 0.8, "fun": 0.2}}


def test_a_soft_verbalizers_gradient_and_minimum():
    rng = np.random.default_rng(0)
    x, m, y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3)), np.arange(9) % 3

    def part(i):
        return lambda d: soft_verbalizer.loss_and_gradient(d.reshape(4, 3), x, m, y, 0.7)[i]

    assert check_grad(part(0), part(1), rng.standard_normal(12)) < 1e-5
    found = soft_verbalizer.correct(x, m, y, spread=0.7)
    np.testing.assert_allclose(part(1)(found.ravel()), 0, atol=1e-3)
    # Two rows, one word, no class scores: one class has d = 2 t^2 / (1 + e^2d), the other -d.
    t = 0.5 * 2 / 1
    d = brentq(lambda d: d - t**2 * 2 / (1 + np.exp(2 * d)), 0, 10)
    decoder = SoftVerbalizer(spread=0.5).fit([[3.0], [1.0]], ["a", "b"], scores=np.zeros((2, 2)))
    np.testing.assert_allclose(decoder.coef_, [[d], [-d]], rtol=1e-4)
    np.testing.assert_allclose(decoder.intercept_, [-2 * d, 2 * d], rtol=1e-4)
    with pytest.raises(InputError, match="spread"):
        SoftVerbalizer(spread=0.0).fit([[3.0], [1.0]], ["a", "b"])


def test_a_soft_verbalizer_starts_at_the_semantic_weights():
    model = FakeModel()
    texts, y = ["so good", "quite fun", "so bad", "awful taste"], ["pos", "pos", "neg", "neg"]
    new = ["a fine one", "so awful", "dull"]

    def fit(decoder, **options):
        clf = FewShotClassifier(
            model, labels=WEIGHTED, decoder=decoder, store=None, calibration="none", **options
        )
        return clf.fit(texts, y)

    start, plain = fit(SoftVerbalizer(spread=1e-4)), fit(ZeroShot())
    np.testing.assert_allclose(start.predict_proba(new), plain.predict_proba(new), atol=1e-5)
    assert start.n_queries_ == plain.n_queries_ == 4 + 1
    soft = fit(SoftVerbalizer())
    assert soft.decoder_.coef_.shape == (2, 5)
    words = soft.task_.features(soft.observe(texts))[0]
    asked = model.observe(
        [soft.task_.template.render({"text": text}) for text in texts], soft.task_.verbalizer.words
    ).scores
    np.testing.assert_allclose(words, asked - asked.mean(axis=1, keepdims=True), rtol=1e-6)
    two = fit(SoftVerbalizer(), template=["{text} It was {mask}.", "{mask}: {text}"])
    assert two.decoder_.coef_.shape == (2, 10)


def test_a_soft_verbalizer_learns_that_a_word_misleads():
    """The word "fine" speaks for the wrong class; its weight has to turn."""
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    words = rng.standard_normal((40, 4))
    words[:, 3] -= 3 * (y - 0.5)
    scores = np.stack([words[:, :2].mean(axis=1), words[:, 2:].mean(axis=1)], axis=1)
    decoder = SoftVerbalizer(spread=2.0).fit(words[:20], y[:20], scores=scores[:20])
    assert (scores[20:].argmax(axis=1) == y[20:]).mean() < 0.4
    right = decoder.predict(words[20:], scores=scores[20:]) == y[20:]
    assert right.mean() > 0.8
    assert decoder.coef_[1, 3] < -0.5


def test_a_soft_verbalizer_is_saved_and_compared(tmp_path):
    from tests.compare.test_experiment import TEST, TRAIN, make

    clf = FewShotClassifier(
        FakeModel(), labels=WEIGHTED, decoder=SoftVerbalizer(), store=tmp_path / "s"
    ).fit(TRAIN[0][:8], TRAIN[1][:8])
    clf.save(tmp_path / "saved")
    again = FewShotClassifier.load(
        tmp_path / "saved", model=FakeModel(), store=tmp_path / "s", verify=True
    )
    np.testing.assert_array_equal(again.predict_proba(TEST[0]), clf.predict_proba(TEST[0]))
    model = FakeModel()
    found = make(model, methods=["zero-shot", "dect", "soft-verbalizer"], shots=[8], seeds=[0])
    planned = found.cost()[0].queries
    cells = {cell.method: cell for cell in found.run().cells}
    assert model.queries == planned == 16 + 40 + 1  # the words cost no query of their own
    assert cells["soft-verbalizer"].ledger.parameters == 2 * 3 + 2

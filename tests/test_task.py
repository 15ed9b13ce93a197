"""Views together with rows that fail, scores that are bounds, and budgets."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace

import numpy as np
import pytest

from fewfit import FewShotClassifier, ZeroShot
from fewfit.decoders import IPET
from fewfit.errors import BudgetExceededError, CapabilityError, InputError, ModelError, ModelWarning
from fewfit.models import FakeModel
from fewfit.observations import Observations, ScoreSpace, Status, unanswered
from fewfit.prompts import Conjugate
from tests.estimators.test_classifier import LABELS, TEXTS, Y

ONE, TWO = "{text} It was {mask}.", "{mask}: {text}"


class Partial(FakeModel):
    """A fake that fails where a template and a text meet, and has bounds for some texts.

    There, all label words but the first are bounds.
    """

    def __init__(self, *, fails=(), bounds="NOTHING", batch_size=1) -> None:
        super().__init__(batch_size=batch_size)
        self.fails, self.bounds = fails, bounds

    def stream(self, prompts, words):
        for positions, answers in super().stream(prompts, words):
            asked = [prompts[i] for i in positions]
            failed = np.array(
                [any(a in p.text("_") and b in p.text("_") for a, b in self.fails) for p in asked]
            )
            if failed.all():
                yield positions, unanswered(words, len(positions))
                continue
            bound = np.array([self.bounds in p.text("_") for p in asked])
            nan = np.where(failed, np.nan, 0)[:, None]
            yield (
                positions,
                replace(
                    answers,
                    scores=answers.scores + nan,
                    hidden=answers.hidden + nan,
                    status=np.where(failed, Status.FAILED, answers.status),
                    censored=bound[:, None] & (np.arange(len(words)) > 0),
                ),
            )


def make(model, **options) -> FewShotClassifier:
    return FewShotClassifier(
        model, **{"template": [ONE, TWO], "labels": LABELS, "store": None, **options}
    )


@pytest.mark.parametrize("calibration", ["contextual", "batch", "domain-context"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_example_that_fails_in_one_view_is_left_out_whole(calibration, batch_size):
    texts, y = [*TEXTS, "good lost"], [*Y, "neg"]
    model = Partial(fails=[("It was", "lost")], batch_size=batch_size)
    clf = make(model, calibration=calibration, errors="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if calibration == "domain-context":  # its pseudo-documents may hold the word that fails
            model.fails = [("good lost It was", "lost")]
        with pytest.warns(ModelWarning, match="1 of 7 examples"):
            clf.fit(texts, y)
    assert clf.n_examples_ == len(TEXTS)
    assert clf.n_queries_ == model.queries
    new = ["so bad", "fine lost", "good"]
    model.fails = [("It was", "lost")]
    with_lost = clf.predict_proba(new)
    assert np.isnan(with_lost[1]).all()
    np.testing.assert_allclose(with_lost[[0, 2]], clf.predict_proba([new[0], new[2]]), rtol=1e-5)
    if calibration != "domain-context":  # whose prior is made of all texts, answered or not
        clean = make(FakeModel(), calibration=calibration).fit(TEXTS, Y)
        np.testing.assert_allclose(clf.task_.prior, clean.task_.prior, rtol=1e-6)
        np.testing.assert_allclose(
            with_lost[[0, 2]], clean.predict_proba([new[0], new[2]]), rtol=1e-4
        )
    with pytest.raises(ModelError, match="no label"):
        clf.predict(new)
    with pytest.raises(ModelError, match="1 of"):
        make(model, calibration="none").fit(texts, y)


def test_a_class_that_one_view_never_answered_is_not_fitted():
    model = Partial(fails=[("_:", "bad")])
    with pytest.raises(ModelError, match="class 'neg'"):
        make(model, errors="nan").fit(TEXTS, Y)
    with pytest.raises(ModelError, match="any example"):
        make(Partial(fails=[("_:", "")]), errors="nan", calibration="none").fit(TEXTS, Y)
    with pytest.raises(ModelError, match="content-free"):
        make(Partial(fails=[(": ", "_")]), errors="nan").fit(TEXTS, Y)


def test_bounds_of_examples_that_are_left_out_do_not_count():
    texts, y = [*TEXTS[:2], "HIDE one", "HIDE two"], [*Y[:2], "pos", "neg"]
    with (
        pytest.warns(ModelWarning, match="upper bounds"),
        pytest.raises(CapabilityError, match="25%"),
    ):
        make(Partial(bounds="HIDE"), max_censored=0.2).fit(texts, y)
    lost = Partial(bounds="HIDE", fails=[("It was", "HIDE")])
    with pytest.warns(ModelWarning):
        fitted = make(lost, max_censored=0.0, errors="nan").fit(texts, y)
    assert fitted.n_examples_ == 2


def test_a_weighted_mean_is_a_bound_if_one_of_its_words_is():
    answers = Observations(
        columns=("a", "b", "c"),
        scores=np.array([[-1, -2, -3], [-4, -5, -6]]),
        space=ScoreSpace.LOGPROB,
        hidden=None,
        label_mass=np.zeros(2),
        n_tokens=np.zeros(2),
        status=np.zeros(2),
        asked=np.ones(2),
        censored=np.array([[False, True, False], [True, False, True]]),
    )
    mean = answers.by_class(["x", "y"], [0, 0, 1], [0.25, 0.75, 1.0])
    np.testing.assert_allclose(mean.scores, [[-1.75, -3], [-4.75, -6]])
    np.testing.assert_array_equal(mean.censored, [[True, False], [True, True]])
    best = answers.by_class(["x", "y"], [0, 0, 1])
    np.testing.assert_array_equal(best.censored, [[False, False], [False, True]])


def test_a_budget_without_a_store_never_loses_what_a_first_go_paid(tmp_path):
    spelled = [ONE, Conjugate(ONE, str.swapcase, str.swapcase)]
    for options, more in (
        ({"template": spelled, "decoder": ZeroShot()}, {}),
        ({"decoder": IPET()}, {"unlabelled": ["so", "so so"]}),
    ):
        model = FakeModel()
        with pytest.raises(InputError, match="max_queries"):
            make(model, max_queries=15, **options).fit(TEXTS, Y, **more)
        assert model.queries == 0
        stored = make(model, max_queries=15, **{**options, "store": tmp_path / "s.sqlite"})
        with contextlib.suppress(BudgetExceededError):
            stored.fit(TEXTS, Y, **more)
        stored.fit(TEXTS, Y, **more)
        assert model.queries == 2 * (len(TEXTS) + 1) + 2 * len(more.get("unlabelled", ()))
        (tmp_path / "s.sqlite").unlink()


def test_unlabelled_texts_that_fail_are_left_out():
    pool = ["so good", "so bad", "lost"]
    model = Partial(fails=[("It was", "lost")])
    with pytest.warns(ModelWarning, match="1 of 3 unlabelled"):
        clf = make(model, decoder=IPET(), errors="nan").fit(TEXTS, Y, unlabelled=pool)
    clean = make(FakeModel(), decoder=IPET()).fit(TEXTS, Y, unlabelled=pool[:2])
    np.testing.assert_allclose(
        clf.predict_proba(["good"]), clean.predict_proba(["good"]), rtol=1e-5
    )
    with pytest.raises(ModelError, match="unlabelled"):
        make(model, decoder=IPET(), errors="nan").fit(TEXTS, Y, unlabelled=["lost"])
    with pytest.raises(InputError, match="unlabelled: no examples"):
        make(FakeModel(), decoder=IPET()).fit(TEXTS, Y, unlabelled=[])

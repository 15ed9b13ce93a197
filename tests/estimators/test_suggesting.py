"""Which texts to label next."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit import FewShotClassifier
from fewfit.errors import InputError, ModelError
from fewfit.estimators.suggesting import NEW, TYPICAL, UNCERTAIN, choose
from fewfit.models import FakeModel
from tests.test_task import Partial

LABELS = {"neg": "bad", "pos": "good"}


def groups(sizes, seed=0, H=16, spread=0.15):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes), H)[y] + spread * rng.normal(size=(len(y), H)), y


def test_the_first_texts_are_one_of_each_group_that_the_scores_tell_apart():
    X, y = groups([60, 30, 10])
    found = choose(X, 4.0 * np.eye(3)[y], 6)
    assert sorted(y[[item.place for item in found[:3]]]) == [0, 1, 2]
    assert sorted(y[[item.place for item in found]]) == [0, 0, 1, 1, 2, 2]
    assert {item.reason for item in found} <= {TYPICAL, UNCERTAIN}
    similar = (X @ X.T)[np.ix_(y == 0, y == 0)].mean(axis=1)
    assert similar[next(i.place for i in found if y[i.place] == 0)] > np.median(similar)


def test_what_is_labelled_is_not_learnt_twice():
    X, y = groups([40, 40])
    f = 4.0 * np.eye(2)[y]
    alone = choose(X, f, 1, (X[:3], y[:3]))
    assert y[alone[0].place] == 1
    rng = np.random.default_rng(1)
    two = X.copy()
    two[:20, 2] += 1.0  # class 0 falls into two parts, of which one is known
    known = two[[0, 1, *range(40, 46)]], np.repeat([0, 1], [2, 6])
    found = choose(two, f, 1, known)
    assert 20 <= found[0].place < 40
    order = rng.permutation(80)
    again = choose(
        two[order], f[order], 1, (two[[0, 1, *range(40, 46)]], np.repeat([0, 1], [2, 6]))
    )
    assert order[again[0].place] == found[0].place


def test_every_tenth_is_from_a_group_that_fits_no_class():
    X, y = groups([100, 100, 12])
    f = 4.0 * np.eye(3)[y][:, :2]
    found = choose(X, f, 10)
    assert (y[found[9].place], found[9].reason) == (2, NEW)
    assert all(item.reason != NEW for item in found[:9] if y[item.place] < 2)


def test_a_doubtful_text_is_called_uncertain():
    X, y = groups([50, 50])
    f = 4.0 * np.eye(2)[y]
    f[y == 0] /= 20
    reasons = {y[item.place]: item.reason for item in choose(X, f, 2)}
    assert reasons == {0: UNCERTAIN, 1: TYPICAL}


@pytest.mark.parametrize("H", [0, 1])
def test_hidden_states_that_say_nothing_do_no_harm(H):
    f = np.random.default_rng(0).normal(size=(7, 3))
    found = choose(np.ones((7, H)), f, 20)
    assert sorted(item.place for item in found) == list(range(7))


def test_a_large_pool_is_dealt_with_in_parts(monkeypatch):
    X, y = groups([60, 60])
    f = 4.0 * np.eye(2)[y]
    whole = choose(X, f, 12)
    monkeypatch.setattr("fewfit.estimators.suggesting._CHUNK", 7)
    assert choose(X, f, 12) == whole
    monkeypatch.setattr("fewfit.estimators.suggesting._REFERENCES", 30)
    few = choose(X, f, 12)
    order = np.random.default_rng(0).permutation(120)
    assert [order[i.place] for i in choose(X[order], f[order], 12)] == [i.place for i in few]


def zero(model, **options):
    return FewShotClassifier(model, labels=LABELS, decoder="zero-shot", store=None, **options).fit(
        [], []
    )


POOL = [f"{w} day {i}" for i in range(15) for w in ("good", "bad")]


def test_from_no_label_on_at_one_query_for_each_text():
    model = FakeModel()
    clf = zero(model)
    asked = model.queries
    found = clf.suggest([*POOL, *POOL], n=4)
    assert found.queries == model.queries - asked == len(POOL)
    assert [POOL[item.index] for item in found] == [item.row["text"] for item in found]
    assert sorted(item.row["text"].split()[0] for item in found) == ["bad", "bad", "good", "good"]
    backwards = clf.suggest(POOL[::-1], n=4)
    assert [item.row for item in backwards] == [item.row for item in found]
    assert len(clf.suggest(POOL[:3], n=10)) == 3


def test_what_has_a_label_is_left_out_known_to_the_object_or_told(tmp_path):
    model, rows, y = FakeModel(), POOL[:4], ["pos", "neg"] * 2
    clf = FewShotClassifier(model, labels=LABELS, store=None).fit(rows, y)
    found = clf.suggest(POOL, n=30)
    assert len(found) == len(POOL) - 4
    assert not {item.row["text"] for item in found} & set(rows)
    clf.save(tmp_path / "a")
    loaded = FewShotClassifier.load(tmp_path / "a", model=model, store=None)
    assert list(loaded.suggest(POOL, n=30, labelled=(rows, y))) == list(found)
    assert len(loaded.suggest(POOL, n=30)) == len(POOL)


def test_what_was_fitted_on_is_not_asked_about_again():
    model = FakeModel()
    clf = FewShotClassifier(model, labels=LABELS, store=None).fit(POOL[:4], ["pos", "neg"] * 2)
    asked = model.queries
    found = clf.suggest(POOL, n=np.int64(5))
    assert len(found) == 5
    assert found.queries == model.queries - asked == len(POOL) - 4


def test_a_model_without_hidden_states_suggests_with_labels_too():
    rows, y = POOL[:2], ["pos", "neg"]
    clf = FewShotClassifier(FakeModel(hidden_size=0), labels=LABELS, store=None).fit(rows, y)
    found = clf.suggest(POOL, n=4)
    assert len({item.row["text"] for item in found} - set(rows)) == 4
    told = zero(FakeModel(hidden_size=0)).suggest(POOL, n=4, labelled=(rows, y))
    assert not {item.row["text"] for item in told} & set(rows)


def test_what_makes_no_sense_is_refused_before_anything_is_asked():
    model = FakeModel()
    clf = zero(model)
    asked = model.queries
    for call, said in (
        (lambda: clf.suggest(POOL, n=0), "n: expected"),
        (lambda: clf.suggest(POOL, n=True), "n: expected"),
        (lambda: clf.suggest([]), "X: no examples"),
        (lambda: clf.suggest(POOL[:1], labelled=(POOL[:1], ["pos"])), "has a label already"),
        (lambda: clf.suggest(POOL, labelled=(["so"], ["meh"])), "labelled: class 'meh' has no"),
        (lambda: clf.suggest(POOL, labelled=(["so"], [])), "labelled: 0 labels for 1 examples"),
    ):
        with pytest.raises(InputError, match=said):
            call()
    assert model.queries == asked


def test_texts_without_an_answer_are_not_suggested():
    clf = zero(Partial(fails=[("about", "lost")]), errors="nan")
    with pytest.warns(UserWarning, match="1 of 31 texts of the pool"):
        found = clf.suggest([*POOL, "lost"], n=40)
    assert len(found) == len(POOL)
    with pytest.raises(ModelError, match="no usable answer"):
        clf.suggest(["lost"])

"""One fitted estimator, any number of threads: `predict` writes nothing, and loses nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.models import FakeModel

TEXTS = ["a good film", "bad bad", "fine and good", "truly bad stuff"] * 2
Y = ["pos", "neg"] * 4


async def at_once(call, parts):
    return await asyncio.gather(*(asyncio.to_thread(call, part) for part in parts))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("decoder", [None, "dect", "linear-probe"])
def test_eight_tasks_on_one_classifier_get_what_one_gets(decoder, stored, tmp_path):
    parts = [[f"text {i} {j} good" for j in range(20)] for i in range(8)] * 2
    model = FakeModel(batch_size=3)
    store = tmp_path / "store.sqlite" if stored else None
    clf = FewShotClassifier(model, decoder=decoder, store=store, max_queries=10_000).fit(TEXTS, Y)
    paid = model.queries
    before = {name: id(value) for name, value in vars(clf).items()}
    together = asyncio.run(at_once(clf.predict_proba, parts))
    assert {name: id(value) for name, value in vars(clf).items()} == before
    if stored:
        assert model.queries - paid == 8 * 20, "each text once, whatever the threads"
    np.testing.assert_array_equal(together, [clf.predict_proba(part) for part in parts])


def test_several_labels_in_threads():
    y = [{"a"}, {"b"}, {"a", "b"}, set()] * 2
    clf = MultiLabelClassifier("fake", store=None).fit(TEXTS, y)
    parts = [[f"text {i} good", "bad"] for i in range(8)]
    assert asyncio.run(at_once(clf.predict, parts)) == [clf.predict(part) for part in parts]


def test_the_embedded_model_in_threads(embedded):
    clf = FewShotClassifier(embedded, store=None).fit(TEXTS, Y)
    parts = [[f"text {i} good", "bad " * i] for i in range(8)]
    together = asyncio.run(at_once(clf.predict_proba, parts))
    np.testing.assert_allclose(together, [clf.predict_proba(part) for part in parts], atol=1e-6)

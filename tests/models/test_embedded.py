"""The default model as a frozen model of texts, pairs and several templates."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit import DecT, FewShotClassifier, LinearProbe, Template
from fewfit.compare import DecoderMethod, Experiment
from fewfit.errors import InputError
from fewfit.observations import Status
from tests.conftest import TEMPLATE
from tests.models.test_base import WORDS


def test_pairs_of_any_length_come_back_in_order(embedded):
    pair = Template("{a} ? {mask}, {b}")
    rows = [
        {"a": "word " * (i % 7 + 1), "b": "other " * (600 if i == 40 else 1)} for i in range(70)
    ]
    answers = embedded.observe([pair.render(row) for row in rows], WORDS)
    for i in (0, 6, 40, 69):
        alone = embedded.observe([pair.render(rows[i])], WORDS)
        np.testing.assert_allclose(answers.hidden[i], alone.hidden[0], atol=2e-6)
        np.testing.assert_allclose(answers.scores[i], alone.scores[0], atol=2e-6)
    assert np.flatnonzero(answers.status == Status.TRUNCATED).tolist() == [40]


def test_views_of_one_and_of_two_fields_do_not_go_together(embedded):
    clf = FewShotClassifier(
        embedded, template=["{a} {mask}, {b}", "{a} {mask}"], labels={0: "no", 1: "yes"}, store=None
    )
    with pytest.raises(InputError, match="give every template two fields"):
        clf.fit([{"a": "x", "b": "y"}] * 2, [0, 1])
    rows = [{"a": str(i), "b": "y"} for i in range(4)]
    with pytest.raises(InputError, match="give every template two fields"):
        Experiment(
            rows[:2],
            [0, 1],
            rows[2:],
            [0, 1],
            template="{a} {mask}, {b}",
            labels={0: "no", 1: "yes"},
            models=[embedded],
            methods={"one": DecoderMethod(LinearProbe(), template="{a} {mask}"), "two": DecT()},
            shots=[1],
            seeds=1,
        )


def test_embedded_answers_several_templates_in_one_call(embedded):
    other = Template("{text} The topic is {mask}.")
    mixed = [TEMPLATE.render({"text": "x"}), other.render({"text": "x"})]
    both = embedded.observe(mixed, WORDS)
    for i, prompt in enumerate(mixed):
        np.testing.assert_allclose(
            both.scores[i], embedded.observe([prompt], WORDS).scores[0], atol=2e-6
        )
    assert abs(both.scores[0] - both.scores[1]).max() > 0.01

"""What every frozen model promises."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
from sklearn.base import clone

from fewfit.estimators import FewShotClassifier
from fewfit.models import FrozenModel
from fewfit.observations import Status
from fewfit.prompts import Prompt, Template

_TEMPLATE = Template("{text} In summary, it was {mask}.")
_TEXTS = ["it was great fun", "", "bad {mask}", "so so, and " * 4, "é" * 30, "日本 🙂", "[SEP]"]
_WORDS = ("bad", "great")


def _prompts(*texts: str) -> list[Prompt]:
    return [_TEMPLATE.render({"text": text}) for text in texts]


def check_gives_what_it_declares(model: FrozenModel) -> None:
    """Answers have the arrays, spaces and counts that ``capabilities`` promise."""
    answers, given = model.observe(_prompts(*_TEXTS), _WORDS), model.capabilities
    assert answers.space == given.scores
    assert (answers.hidden is not None) == given.hidden
    assert answers.columns == _WORDS
    assert len(answers) == len(_TEXTS)
    assert answers.queries == len(_TEXTS)
    assert (answers.status != Status.FAILED).all()
    for array in (answers.scores, answers.hidden):
        assert array is None or (array.dtype == np.float32 and np.isfinite(array).all())


def check_order_and_batches(model: FrozenModel) -> None:
    """A prompt's answer does not depend on the prompts beside it, nor on the order of the words."""
    whole = model.observe(_prompts(*_TEXTS), _WORDS)
    backwards = model.observe(_prompts(*_TEXTS[::-1]), _WORDS[::-1])
    single = [model.observe(_prompts(text), _WORDS) for text in _TEXTS]
    if whole.scores is not None and backwards.scores is not None:
        np.testing.assert_allclose(backwards.scores[::-1, ::-1], whole.scores, atol=1e-4)
    for name in ("scores", "hidden"):
        array = getattr(whole, name)
        if array is not None:
            alone = np.concatenate([getattr(answers, name) for answers in single])
            np.testing.assert_allclose(alone, array, atol=1e-4)


def check_repeated_prompts(model: FrozenModel) -> None:
    """A prompt that occurs twice is asked once, and progress counts the distinct ones."""
    seen: list[int] = []
    answers = model.observe(_prompts("a", "b", "a", "a"), _WORDS, progress=seen.append)
    assert answers.asked.tolist() == [True, True, False, False]
    assert sum(seen) == 2


def check_identity(model: FrozenModel) -> None:
    """The identity is named strings, the same each time, and holds no path of this machine."""
    identity = dict(model.identity)
    assert identity == dict(model.identity)
    assert all(isinstance(k, str) and isinstance(v, str) for k, v in identity.items())
    assert identity, "an empty identity would share its stored answers with every other model"


def check_copies(model: FrozenModel) -> None:
    """A clone of an estimator shares the model; a model with a spec pickles in kilobytes."""
    assert copy.deepcopy(model) is model
    assert clone(FewShotClassifier(model)).model is model
    if model.spec is not None:
        data = pickle.dumps(model)
        assert len(data) < 100_000, f"a pickle of {len(data)} bytes holds weights"
        assert dict(pickle.loads(data).identity) == dict(model.identity)


FROZEN_MODEL_CHECKS: tuple[Callable[[FrozenModel], None], ...] = (
    check_gives_what_it_declares,
    check_order_and_batches,
    check_repeated_prompts,
    check_identity,
    check_copies,
)


def check_frozen_model(model: FrozenModel) -> None:
    """Check that a frozen model keeps the promises of all frozen models; a dozen queries.

    Raises
    ------
    AssertionError
        Or whatever the model raises, at the first promise that is not kept.
    """
    for check in FROZEN_MODEL_CHECKS:
        check(model)

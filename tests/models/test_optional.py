"""What only some frozen models have, asked of those that have it and of those that have not."""

from __future__ import annotations

import pytest

from fewfit.errors import CapabilityError, MissingExtraError
from fewfit.models import FakeModel
from fewfit.models.base import Check
from fewfit.models.budget import BudgetedModel
from fewfit.models.costs import Size
from fewfit.models.optional import (
    check_fields,
    check_installed,
    gives_vocabulary,
    retries_of,
    size_of,
    takes_soft_prompts,
)
from fewfit.store import StoredModel
from tests.conftest import prompts


class Everything(FakeModel):
    size = Size(7, encoder_decoder=False)
    retries = 3

    def check_installed(self):
        raise MissingExtraError("no such package")

    def check_fields(self, prompt, words):
        self.queries += 1
        return [Check("field", "ok", prompt.user_text)]


def in_front(model, folder):
    return StoredModel(BudgetedModel(model, 1, keeps=True), folder / "store")


def test_a_model_without_them_has_the_defaults(tmp_path):
    for model in (FakeModel(), in_front(FakeModel(), tmp_path)):
        check_installed(model)
        assert size_of(model) is None
        assert retries_of(model) == 0
        assert check_fields(model, prompts("a")[0], ["x"]) == []
        for ask in (gives_vocabulary, takes_soft_prompts):
            with pytest.raises(CapabilityError, match="does not give"):
                ask(model)


def test_what_pays_nothing_is_asked_through_a_store_and_a_budget(tmp_path):
    model = in_front(Everything(), tmp_path)
    assert size_of(model) == Size(7, encoder_decoder=False)
    assert retries_of(model) == 3
    with pytest.raises(MissingExtraError):
        check_installed(model)


def test_what_asks_passes_no_store_and_no_budget_by(tmp_path):
    model = Everything()
    assert check_fields(in_front(model, tmp_path), prompts("a")[0], ["x"]) == []
    assert model.queries == 0
    [check] = check_fields(model, prompts("a")[0], ["x"])
    assert (check.detail, model.queries) == ("a", 1)


def test_an_attribute_of_a_users_model_that_is_called_size_is_not_taken_for_one():
    model = FakeModel()
    model.size = 512  # type: ignore[attr-defined]
    assert size_of(model) is None

"""A frozen model as a task uses it: by name, behind a store and a budget."""

from __future__ import annotations

from pathlib import Path

from fewfit.models import FrozenModel, load_model
from fewfit.models.budget import BudgetedModel
from fewfit.models.vocabulary import VocabularyModel
from fewfit.store import StoredModel, default_path


def open_model(
    spec: str | FrozenModel,
    store: str | Path | None,
    max_queries: int | None = None,
    requires: frozenset[str] = frozenset(),
) -> FrozenModel:
    """Return the frozen model that `spec` names, behind a store and a budget unless None.

    Where a decoder `requires` the full vocabulary, the model's hidden state is its distribution
    over the vocabulary; see :class:`fewfit.models.vocabulary.VocabularyModel`.
    """
    if isinstance(spec, str) and spec.startswith("tuned:"):
        from fewfit.tuning import TunedModel

        model: FrozenModel = TunedModel(spec.removeprefix("tuned:"))
    else:
        model = load_model(spec)
    if isinstance(model, StoredModel):
        model, store = model.model, model.path
    if "full_vocabulary" in requires:
        model = VocabularyModel(model)
    if max_queries is not None:
        model = BudgetedModel(model, max_queries, keeps=store is not None)
    if store is None:
        return model
    return StoredModel(model, default_path() if store == "default" else store)

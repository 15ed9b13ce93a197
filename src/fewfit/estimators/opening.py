"""A frozen model as a task uses it: by name, behind a store and a budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewfit.errors import InputError
from fewfit.models import KINDS, FrozenModel, named_model
from fewfit.models.budget import BudgetedModel
from fewfit.models.paired import JOINT, PairedModel, halves
from fewfit.models.vocabulary import VocabularyModel
from fewfit.parameters import did_you_mean
from fewfit.store import StoredModel, default_path


def load_model(spec: str | FrozenModel) -> FrozenModel:
    """Return the frozen model that `spec` names; a frozen model is returned as it is.

    Parameters
    ----------
    spec : str or FrozenModel
        ``"embedded"``, the multilingual sentence encoder that needs no network;
        ``"embedded-en"``, ``"embedded-en-float32"``, English ones;
        ``"hf:NAME_OR_PATH[@REVISION][?option=value&...]"``, a language model of transformers, from
        a folder or the hub (:meth:`TransformersModel.from_spec`);
        ``"encoder:NAME_OR_PATH[@REVISION][?option=value&...]"``, a sentence encoder likewise
        (:meth:`SentenceEncoder.from_spec`); ``"fake"``, the toy model for
        tests; or a server, as ``DIALECT:URL?OPTION=VALUE&...``, for example
        ``"vllm:http://localhost:8000?model=Qwen3-8B"``. Dialects: ``openai`` (completions),
        ``openai-chat``, ``vllm``, ``sglang``, ``llamacpp``, ``ollama``, ``embeddings``, ``tei``.
        ``"tuned:FOLDER"`` is what ``fewfit tune`` wrote (:class:`fewfit.tuning.TunedModel`).
        ``"A + B"`` has the label scores of A and the hidden states of B
        (:class:`fewfit.models.paired.PairedModel`).
        Options: :class:`fewfit.models.remote.options.Options`. A key is never part of it.

    Returns
    -------
    FrozenModel
        Weights are loaded, and a server is spoken to, when it is first asked, not here.

    Raises
    ------
    InputError
        If nothing is known under this name, or an address holds a key.
    """
    if isinstance(spec, FrozenModel):
        return spec
    if not isinstance(spec, str):
        raise InputError(f"model: expected a name or a frozen model, got a {type(spec).__name__}")
    if JOINT in spec:
        scores, hidden = (part.strip() for part in spec.split(JOINT, 1))
        pair(scores, hidden)
        return PairedModel(load_model(scores), load_model(hidden))
    name, _, rest = spec.partition(":")
    if name == "tuned":
        from fewfit.tuning import TunedModel

        return TunedModel(rest)
    if name not in KINDS:
        known = [*KINDS, "tuned"]
        hint = _meant(spec, known)
        raise InputError(
            f"model: {name[:60]!r} is not known; choose one of {', '.join(known)}{hint}"
        )
    return named_model(spec)


def pair(scores: str | FrozenModel, hidden: str | FrozenModel | None) -> str | FrozenModel:
    """Return who has the scores of one and the hidden states of another, if there is another.

    Raises
    ------
    InputError
        If one of them is two models already.
    """
    if hidden is None:
        return scores
    for name, half in (("model", scores), ("hidden", hidden)):
        if isinstance(half, PairedModel) or (isinstance(half, str) and JOINT in half):
            raise InputError(f"{name}: {half!r:.80} is two models already")
    if isinstance(scores, str) and isinstance(hidden, str):
        return scores + JOINT + hidden
    return PairedModel(load_model(scores), load_model(hidden))


def _meant(spec: str, known: Sequence[str]) -> str:
    """Return what somebody may have meant who left out a spec's kind, or mistyped it."""
    name, colon, _ = spec.partition(":")
    if name in ("http", "https"):  # the address is not repeated: it may hold a key
        return (
            "; an address has its dialect in front of it, as in 'openai:http://...?model=NAME', "
            "'openai-chat:http://...?model=NAME' or 'vllm:http://...'"
        )
    if spec and Path(spec).is_dir():
        tuned = (Path(spec) / "manifest.json").exists()
        return f"; what 'fewfit tune' wrote is 'tuned:{spec}'" * tuned or (
            f"; a language model in a folder is 'hf:{spec}'"
        )
    hint = did_you_mean(name, dict.fromkeys(known))
    if not hint and spec and not colon:
        return f"; a language model of the hub, or in a folder, is 'hf:{spec[:60]}'"
    return hint


def open_model(
    spec: str | FrozenModel,
    store: str | Path | None,
    max_queries: int | None = None,
    requires: frozenset[str] = frozenset(),
) -> FrozenModel:
    """Return the frozen model that `spec` names, behind a store and a budget unless None.

    Where a decoder `requires` the full vocabulary, the model's hidden state is its distribution
    over the vocabulary; see :class:`fewfit.models.vocabulary.VocabularyModel`. Each half of a pair
    has the store and the budget in front of itself.
    """
    model = load_model(spec)
    if isinstance(model, PairedModel):
        if "full_vocabulary" in requires:
            return VocabularyModel(model)  # which none gives, as its capabilities say
        return PairedModel(*(open_model(half, store, max_queries) for half in halves(model)))
    if isinstance(model, StoredModel):
        model, store = model.model, model.path
    if "full_vocabulary" in requires:
        model = VocabularyModel(model)
    if max_queries is not None:
        model = BudgetedModel(model, max_queries, keeps=store is not None)
    if store is None:
        return model
    return StoredModel(model, default_path() if store == "default" else store)

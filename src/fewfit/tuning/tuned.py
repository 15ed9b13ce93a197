"""A network with tuned vectors as a frozen model: decoders work on top of it as on any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewfit.models.trust import check_unnamed
from fewfit.errors import InputError, ModelError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.costs import Size
from fewfit.models.local import no_progress_bar
from fewfit.observations import Batch, Observations, ScoreSpace, Status
from fewfit.prompts import Prompt
from fewfit.tuning.choices import ChoiceExample
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.sites import site_map
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.vectors import MANIFEST, TENSORS, check_base, load_vectors, read_manifest

_TOKENS_PER_BATCH = 4096


class TunedModel(FrozenModel):
    """The vectors of a folder, merged into the network that they were tuned on.

    Score of a label word, space ``logprob``
        Its length-normalised log-likelihood, end token included, in nats per token: T-Few's beta.
        The softmax over the label words is what L_LN trains.
    Tokens
        Those of the prompt and of all choices.
    Hidden state
        The last one that predicts the first token of the answer.

    Parameters
    ----------
    folder : path
        Written by ``fewfit tune`` or :func:`fewfit.tuning.save_vectors`.
    base : str, optional
        Where the network is, if not where it was; it must be the same one.

    Raises
    ------
    ArtifactError
        If the folder cannot be read.
    ModelError, ModelMismatchError
        When first asked, if the network cannot be loaded or is another one.

    Notes
    -----
    ``label_mass`` is NaN. For a masked model the hidden state is read with as many masks in the
    slot as the first label word has tokens.
    """

    def __init__(self, folder: str | Path, *, base: str | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self._base = base if base is not None else self.manifest.base_spec
        self.spec = f"tuned:{folder}"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(TunedModel, self.folder, base=self._base), ()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=True)

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": self.manifest.method,
            "vectors_sha256": self.manifest.files[TENSORS],
            **{f"base_{key}": value for key, value in self.manifest.base_identity.items()},
        }

    @property
    def size(self) -> Size | None:
        costs = self.manifest.costs
        if costs is None:
            return None
        kept = (self.folder / TENSORS).stat().st_size
        return Size(costs.n_parameters, costs.encoder_decoder, costs.training_flops, kept)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        if len(words) < 2:
            raise InputError("labels: a tuned model ranks at least two label words")
        trunk = self._trunk
        encoded = [trunk.encoder.encode(ChoiceExample(p, tuple(words), 0)) for p in prompts]
        lengths = np.array([len(item.before) + len(item.after) for item in encoded])
        order = np.argsort(-lengths, kind="stable")
        said = sum(len(choice) for choice in encoded[0].choices)
        start = 0
        while start < len(order):
            n = max(1, _TOKENS_PER_BATCH // (int(lengths[order[start]]) + said))
            rows = order[start : start + n]
            with torch.inference_mode():
                tokens, hidden = trunk.read(trunk.pack([encoded[i] for i in rows]))
                scores = tokens.beta.view(len(rows), len(words))
            cut = [encoded[i].truncated for i in rows]
            yield (
                rows,
                Observations(
                    columns=tuple(words),
                    scores=scores.cpu().numpy(),
                    space=ScoreSpace.LOGPROB,
                    hidden=hidden.float().cpu().numpy(),
                    label_mass=np.full(len(rows), np.nan, dtype=np.float32),
                    n_tokens=lengths[rows] + said,
                    status=np.where(cut, Status.TRUNCATED, Status.OK),
                    asked=np.ones(len(rows), dtype=bool),
                ),
            )
            start += n

    @cached_property
    def _trunk(self) -> Trunk:
        trunk = self._load()
        vectors = IA3(site_map(trunk.network)).to(trunk.device)
        vectors.set(load_vectors(self.folder)[1])
        vectors.merge(trunk.network)
        return trunk

    def _load(self) -> Trunk:
        if self._base is None:
            raise ModelError(
                f"{self.folder / MANIFEST} names no checkpoint; give the one it was tuned on"
            )
        if self._base == self.manifest.base_spec:
            check_unnamed(self._base, self.folder / MANIFEST)
        known = self.manifest.base_identity
        trunk = Trunk.load(
            self._base,
            dtype=known.get("dtype", "float32"),
            max_tokens=int(known.get("max_tokens", 256)),
        )
        check_base(self.manifest, trunk.identity)
        return trunk

    def export(self, folder: str | Path) -> None:
        """Write an ordinary checkpoint of transformers with the vectors merged into its weights.

        Raises
        ------
        InputError
            If the folder exists and is not empty.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not an empty folder; name another one")
        with no_progress_bar():
            self._trunk.network.save_pretrained(folder)
            self._trunk.tokenizer.save_pretrained(folder)

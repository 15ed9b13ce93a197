"""A network with tuned vectors as a frozen model: decoders work on top of it as on any other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewfit.errors import ArtifactError, InputError, ModelError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.costs import Size
from fewfit.models.local import Budget, finish, no_progress_bar, read_in_batches
from fewfit.models.trust import check_unnamed
from fewfit.observations import Batch, Observations, ScoreSpace
from fewfit.prompts import Prompt
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.sites import site_map
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.vectors import MANIFEST, TENSORS, check_base, load_vectors, read_manifest


class _Row(NamedTuple):
    """A prompt with all its choices."""

    item: Encoded

    @property
    def ids(self) -> list[int]:
        """All tokens that are read."""
        said = [token for choice in self.item.choices for token in choice]
        return [*self.item.before, *self.item.after, *said]

    @property
    def truncated(self) -> bool:
        """Whether the user's text was cut."""
        return self.item.truncated


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
        sizes = [len(prompt.user_text) for prompt in prompts]

        def encode(window: NDArray[np.intp]) -> list[_Row]:
            examples = (ChoiceExample(prompts[i], tuple(words), 0) for i in window)
            return [_Row(trunk.encoder.encode(example)) for example in examples]

        def answer(rows: Sequence[_Row]) -> Observations:
            with torch.inference_mode():
                tokens, hidden = trunk.read(trunk.pack([row.item for row in rows]))
            scores = tokens.beta.view(len(rows), len(words)).cpu().numpy()
            states = hidden.float().cpu().numpy()
            return finish(rows, tuple(words), ScoreSpace.LOGPROB, scores, states)

        yield from read_in_batches(sizes, encode, answer, self._budget)

    @cached_property
    def _budget(self) -> Budget:
        return Budget(tokens=4096, rows=512)

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
        longest = known.get("max_tokens", "256")
        if not (longest.isdecimal() and len(longest) < 8):
            raise ArtifactError(f"{self.folder / MANIFEST}: max_tokens is not a number of tokens")
        trunk = Trunk.load(
            self._base,
            dtype=known.get("dtype", "float32"),
            max_tokens=int(longest),
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

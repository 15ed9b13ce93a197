"""A network with a trained adapter as a frozen model: decoders work on it as on any other."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from fewfit.artifacts.schema import CARRIED
from fewfit.errors import ArtifactError, InputError, ModelError, ModelMismatchError
from fewfit.models import named_model
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.costs import Size
from fewfit.models.local import Budget, finish, no_progress_bar, read_in_batches
from fewfit.models.trust import check_unnamed
from fewfit.observations import Batch, Observations, ScoreSpace
from fewfit.prompts import Prompt
from fewfit.tuning import is_encoder
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.adapters.ia3 import IA3
from fewfit.tuning.artifact import (
    MANIFEST,
    Manifest,
    identity_of,
    parse_adapter,
    parse_manifest,
    read_files,
    read_manifest,
    restore,
)
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.encoder import EncoderTrunk
from fewfit.tuning.layouts import Stack
from fewfit.tuning.sites_file import layout_from
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading

ENCODER = "sentence-encoder"
"""What the identity of a sentence encoder has as its kind."""


T = TypeVar("T")


class Row(NamedTuple):
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


class Network:
    """A network that tuned models change, each while it is asked, one at a time.

    Attributes
    ----------
    lock : Lock
        Held while it is loaded, or changed.
    """

    def __init__(self, trunk: Trunk | None = None) -> None:
        self.lock = threading.Lock()
        self._trunk = trunk

    def make(self, load: Callable[[], Trunk], made: Callable[[Trunk], T]) -> T:
        """Return what is made of the network, loaded when it is first asked for, by one alone."""
        with self.lock:
            if self._trunk is None:
                self._trunk = load()
            return made(self._trunk)


class TunedModel(FrozenModel):
    """The adapter of a folder, in the network that it was trained on.

    It is merged into the weights where it is a change of weights, and attached where it is not. A
    tuned sentence encoder is one still: what it says is what
    :class:`~fewfit.models.local.SentenceEncoder` says of other weights. Of a language model:

    Score of a label word, space ``logprob``
        Where it was trained to write answers, T-Few's beta: the length-normalised log-likelihood,
        end token included, in nats per token. Where it was trained on words, the log-likelihood
        of the word's tokens, which without training is the score of ``hf:``. The softmax over the
        label words is what L_LN trains.
    Tokens
        Those of the prompt and of all choices.
    Hidden state
        The last one that predicts the first token of the answer.

    Parameters
    ----------
    folder : path
        Written by ``fewfit tune`` or :func:`fewfit.tuning.save_adapter`.
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

    carried: Mapping[str, bytes] = {}
    """The files of an artifact that lies in no folder of its own: whatever is saved holds them."""

    def __init__(self, folder: str | Path, *, base: str | None = None) -> None:
        self._begin(Path(folder), read_manifest(folder), base, f"tuned:{folder}")

    @classmethod
    def of(
        cls,
        files: Mapping[str, bytes],
        *,
        base: str | None = None,
        trunk: Trunk | None = None,
        shared: bool = True,
        folder: Path | None = None,
    ) -> TunedModel:
        """Return the model of an artifact's files, which is saved together with what reads it.

        Parameters
        ----------
        files : mapping of str to bytes
            From :func:`fewfit.tuning.artifact.adapter_files` or `read_files`.
        base : str, optional
        trunk : Trunk, optional
            The network, if it is at hand.
        shared : bool, default=True
            Whether the network stays the caller's, too: the adapter is in it only while it is
            asked, by one thread at a time. If not, it is taken over.
        folder : path, optional
            Where the files were, for messages.
        """
        model = cls.__new__(cls)
        folder = folder or Path()
        manifest = parse_manifest(files[MANIFEST], folder / MANIFEST)
        model._begin(folder, manifest, base, CARRIED)
        model.carried = dict(files)
        model._given = trunk
        model._network = Network(trunk) if shared and trunk is not None else None
        return model

    def _begin(self, folder: Path, manifest: Manifest, base: str | None, spec: str) -> None:
        self.folder, self.manifest, self.spec = folder, manifest, spec
        self._base = base if base is not None else manifest.base_spec
        self._given: Trunk | None = None
        self._network: Network | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.carried:
            return partial(TunedModel.of, self.carried, base=self._base, folder=self.folder), ()
        return partial(TunedModel, self.folder, base=self._base), ()

    @property
    def capabilities(self) -> Capabilities:
        if self._encoder:
            return named_model(str(self.manifest.base_spec)).capabilities
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=True)

    @property
    def _encoder(self) -> bool:
        return self.manifest.base_identity.get("kind") == ENCODER

    @property
    def identity(self) -> Mapping[str, str]:
        return identity_of(self.manifest)

    @property
    def n_tuned(self) -> int:
        return 0 if self.manifest.task is None else self.manifest.n_examples

    @property
    def size(self) -> Size | None:
        costs = self.manifest.costs
        if costs is None:
            return None
        name = self.manifest.tensors_file
        kept = len(self.carried.get(name, b"")) or (self.folder / name).stat().st_size
        return Size(costs.n_parameters, costs.encoder_decoder, costs.training_flops, kept)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        if len(words) < 2:
            raise InputError("labels: a tuned model ranks at least two label words")
        trunk, adapter = self._loaded
        if self._network is None:
            yield from self._stream(trunk, adapter, prompts, words)
            return
        with self._network.lock, adapter.on(trunk.network):
            yield from self._stream(trunk, adapter, prompts, words)

    @property
    def network_key(self) -> str:
        """What is the same of all tuned models of one base model."""
        known = {k: v for k, v in self.manifest.base_identity.items() if k != "reading"}
        return json.dumps(known, sort_keys=True)

    def share(self, networks: dict[str, Network]) -> None:
        """Ask one copy of the network from now on, with all others that are told the same.

        Parameters
        ----------
        networks : dict of str to Network
            By :attr:`network_key`; one that is missing is added, and loaded when it is first asked.
        """
        if self._given is None and "_loaded" not in vars(self):
            self._network = networks.setdefault(self.network_key, Network())

    @property
    def mixture(self) -> str | None:
        """What models have in common whose rows may stand in one batch; None for one in none."""
        if self._encoder:  # reads texts, and scores no choices that could stand in one batch
            return None
        adapter = self._loaded[1]
        if self._network is None or type(adapter) is not IA3:
            return None
        return json.dumps([self.network_key, self._loaded[0].reading, self.manifest.sites])

    def mixed(
        self, groups: Sequence[tuple[TunedModel, Sequence[Prompt], Sequence[str]]]
    ) -> list[Observations]:
        """Answer for models of this one's :attr:`mixture`; see :func:`~fewfit.tuning.mixed`."""
        from fewfit.tuning.mixed import observe_mixed

        return observe_mixed(groups)

    def _stream(
        self, trunk: Trunk, adapter: Adapter, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Iterator[Batch]:
        if isinstance(trunk, EncoderTrunk):
            yield from trunk.model.stream(prompts, words)
            return
        sizes = [len(prompt.user_text) for prompt in prompts]

        def encode(window: NDArray[np.intp]) -> list[Row]:
            examples = (ChoiceExample(prompts[i], tuple(words), 0) for i in window)
            return [Row(trunk.encoder.encode(example)) for example in examples]

        def answer(rows: Sequence[Row]) -> Observations:
            with torch.inference_mode():
                batch = trunk.pack([row.item for row in rows]).to(trunk.device)
                tokens, hidden = trunk.read(adapter.rewrite(batch, trunk))
            scores = tokens.beta.view(len(rows), len(words)).cpu().numpy()
            states = hidden.float().cpu().numpy()
            return finish(rows, tuple(words), ScoreSpace.LOGPROB, scores, states)

        yield from read_in_batches(sizes, encode, answer, self._budget)

    @cached_property
    def _budget(self) -> Budget:
        return Budget(tokens=4096, rows=512)

    @cached_property
    def _loaded(self) -> tuple[Trunk, Adapter]:
        """The network with the adapter in it, and the adapter, for what it rewrites."""
        content = self.carried or read_files(self.folder)
        manifest, tensors = parse_adapter(content, self.folder)
        if self._network is not None:

            def made(trunk: Trunk) -> tuple[Trunk, Adapter]:
                trunk = trunk.reads(self._reading)
                if trunk.layout != (layout := self._layout()):
                    trunk = trunk.described(layout)
                return trunk, restore(manifest, tensors, trunk)

            return self._network.make(self._load, made)
        trunk = self._given or self._load()
        adapter = restore(manifest, tensors, trunk)
        if adapter.mergeable:
            adapter.merge(trunk.network)
        else:
            adapter.attach(trunk.network)
        return trunk, adapter

    @property
    def _trunk(self) -> Trunk:
        return self._loaded[0]

    def _load(self) -> Trunk:
        if self._base is None:
            raise ModelError(
                f"{self.folder / MANIFEST} names no checkpoint; give the one it was tuned on"
            )
        if is_encoder(self._base) != self._encoder:
            raise ModelMismatchError(
                f"model: {self._base!r} is not the kind of model that was tuned, which is "
                f"{self.manifest.base_spec!r}"
            )
        if self._base == self.manifest.base_spec:
            check_unnamed(self._base, self.folder / MANIFEST)
        known = self.manifest.base_identity
        longest = known.get("max_tokens", "256")
        if not (longest.isdecimal() and len(longest) < 8):
            raise ArtifactError(f"{self.folder / MANIFEST}: max_tokens is not a number of tokens")
        return Trunk.load(
            self._base,
            dtype=known.get("dtype", "float32"),
            max_tokens=int(longest),
            reading=self._reading,
            layout=self._layout(),
        )

    @property
    def _reading(self) -> Reading:
        return cast(Reading, self.manifest.base_identity.get("reading", "answers"))

    def _layout(self) -> tuple[Stack, ...] | None:
        """Where the base keeps its layers, if the artifact has to say so."""
        if self.manifest.sites is None:
            return None
        try:
            return layout_from(self.manifest.sites, str(self.folder / MANIFEST))
        except InputError as error:
            raise ArtifactError(str(error)) from None

    def export(self, folder: str | Path) -> None:
        """Write an ordinary checkpoint of transformers with the adapter merged into its weights.

        Raises
        ------
        InputError
            If the folder exists and is not empty, or the adapter is no change of weights.
        ArtifactError
            If it cannot be written; nothing is then left of it.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not an empty folder; name another one")
        if self._encoder:
            raise InputError(
                "merge: a sentence encoder is more than its network; name the folder as the model, "
                "tuned:FOLDER"
            )
        if self._network is not None:
            raise InputError(
                "merge: this model shares its network with others; TunedModel(FOLDER) has its own"
            )
        trunk, adapter = self._loaded
        if not adapter.mergeable:
            adapter.merge(trunk.network)  # refuses, and says why
        folder, fresh = folder.absolute(), None
        place = folder if folder.is_dir() else folder.parent
        try:  # elsewhere first: half a checkpoint looks like one
            place.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=place))
            with no_progress_bar():
                trunk.network.save_pretrained(fresh)
                trunk.tokenizer.save_pretrained(fresh)
            if folder.is_dir():  # not replaced: it may be a file system of its own
                for path in sorted(fresh.iterdir(), key=lambda path: path.name == "config.json"):
                    path.rename(folder / path.name)
            else:
                fresh.chmod(0o755)
                fresh.rename(folder)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{folder} cannot be written: {error}") from error
        finally:
            if fresh is not None:
                shutil.rmtree(fresh, ignore_errors=True)

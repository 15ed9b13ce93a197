"""The frozen network under all tuning: loaded once, never changed, read at the choices' tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewfit.errors import InputError, ModelError
from fewfit.models import KINDS
from fewfit.models.local import (
    Checkpoint,
    Narrowed,
    default_dtype,
    load,
    padding,
    split_trained,
)
from fewfit.tuning import is_encoder
from fewfit.tuning.choices import ChoiceEncoder
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.packing import ChoiceBatch, Packer
from fewfit.tuning.sites import SiteMap, Stack, site_map
from fewfit.tuning.words import Reading, WordEncoder

_TOLD_POSITIONS = "encoder-decoder"
"""The architecture whose decoder has absolute positions and takes them as an argument."""

MAX_TOKENS = 256
"""Of a prompt, in T-Few's recipe."""


class Trunk:
    """A language model of transformers with its tokenizer, its weights frozen.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Encoder-decoder, causal or masked. Its parameters stop requiring gradients here.
    tokenizer : transformers.PreTrainedTokenizerFast
    identity : mapping of str to str
        What names the weights and the tokenizer; tuned vectors are bound to it.
    spec : str, optional
        From which :meth:`load` makes it again.
    max_tokens : int, default=256
        Longer prompts are cut, in the user's text.
    positions : int, optional
        Of prompt and choice together, in a network that has no more.
    layout : sequence of Stack, optional
        Where an unknown architecture keeps its layers.

    Attributes
    ----------
    kind : {"seq2seq", "causal", "masked", "encoder"}
    encoder : ChoiceEncoder or WordEncoder
    reading : {"answers", "words"}
        How choices are read and scored; :meth:`reads` changes it.
    pack : Packer
    max_tokens, positions : int, int or None
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        identity: Mapping[str, str],
        spec: str | None = None,
        max_tokens: int = MAX_TOKENS,
        positions: int | None = None,
        layout: Sequence[Stack] | None = None,
    ) -> None:
        self.layout = layout
        self.network, self.tokenizer = network.eval().requires_grad_(False), tokenizer
        self.identity, self.spec = dict(identity), spec
        self.kind = kind_of(network)
        self.encoder = ChoiceEncoder(
            tokenizer, self.kind, max_tokens=max_tokens, positions=positions
        )
        config = network.config
        pad = padding(network, tokenizer.pad_token_id)
        start = getattr(config, "decoder_start_token_id", None)
        self.pack = Packer(
            self.kind,
            pad,
            start if start is not None else pad,
            tokenizer.mask_token_id,
            positions=config.model_type == _TOLD_POSITIONS,
            lead=len(self.encoder.prefix),
        )
        if self.kind == "masked" and tokenizer.mask_token_id is None:
            raise ModelError("model: the tokenizer of this masked model has no mask token")
        self._narrowed = Narrowed(network)
        self.reading: Reading = "answers"
        self._encoders: dict[Reading, Any] = {"answers": self.encoder}
        self._limits = {"max_tokens": max_tokens, "positions": positions}
        self.max_tokens, self.positions = max_tokens, positions

    def reads(self, reading: Reading) -> Trunk:
        """Return the same network, whose choices are read and scored in this way.

        An encoder-decoder has answers only, whatever is asked for.
        """
        if reading not in ("answers", "words"):
            raise InputError(f"reading: one of ('answers', 'words'), not {reading!r}")
        if reading == self.reading or self.kind == "seq2seq":
            return self
        if reading not in self._encoders:
            self._encoders[reading] = WordEncoder(self.tokenizer, self.kind, **self._limits)
        other = copy(self)
        other.reading, other.encoder = reading, self._encoders[reading]
        other.identity = {k: v for k, v in self.identity.items() if k != "reading"}
        if reading != "answers":
            other.identity["reading"] = reading
        return other

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        dtype: str = "float32",
        device: str | None = None,
        max_tokens: int | None = None,
        reading: Reading = "answers",
        layout: Sequence[Stack] | None = None,
    ) -> Trunk:
        """Load a checkpoint; only safetensors are read, and no code.

        Parameters
        ----------
        spec : str
            ``"hf:NAME_OR_PATH[@REVISION]"``, as for :func:`fewfit.load_model`; its options `dtype`
            and `max_tokens` go before the arguments. A sentence encoder, ``"embedded"`` or
            ``"encoder:NAME_OR_PATH"``, gives an :class:`~fewfit.tuning.encoder.EncoderTrunk`.
        dtype : {"float32", "bfloat16", "float16"}, default="float32"
            Of the frozen weights; what is trained is always float32.
        device : str, optional
            Left out, "cuda" where there is one, else "cpu".
        max_tokens : int, optional
            Left out, 256, and of a sentence encoder its own.
        reading : {"answers", "words"}, default="answers"
            How choices are scored; see :data:`fewfit.tuning.words.Reading`.
        layout : sequence of Stack, optional
            Where an unknown architecture keeps its layers.

        Raises
        ------
        InputError, ModelError
            If there is no such checkpoint, or no language model can be read from it.
        """
        if is_encoder(spec):
            from fewfit.tuning.encoder import EncoderTrunk

            return EncoderTrunk.open(
                spec, dtype=dtype, device=device, max_tokens=max_tokens, layout=layout
            )
        kind, colon, _ = spec.partition(":")
        if colon and kind != "hf" and (kind == "tuned" or kind in KINDS):
            raise InputError(
                f"model: tuning needs weights, hf:FOLDER or encoder:FOLDER, none of {spec!r}"
                + "; name what it was tuned on, or merge it first" * (kind == "tuned")
            )
        name, options, others = split_trained(spec)
        if others:
            raise InputError(f"model: {others[0]!r} in {spec!r} has no meaning for tuning")
        point = Checkpoint(name, options.pop("revision", None))
        dtype = options.pop("dtype", dtype)
        longest = MAX_TOKENS if max_tokens is None else max_tokens
        longest = int(options.pop("max_tokens", longest))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto":  # which a spec may say, as of a frozen model
            dtype = default_dtype(device, fast=True)
        loaded = load(point, dtype=dtype, device=device, who="tune")
        # Relative positions have no end; what T5's config calls a length is what it learned with.
        positions = None if point.kind == "seq2seq" else point.max_tokens
        return cls(
            *loaded,
            identity={**point.fingerprint, "dtype": dtype, "max_tokens": str(longest)},
            spec=f"hf:{name}" if point.local else f"hf:{name}@{point.commit}",
            max_tokens=longest,
            positions=positions,
            layout=layout,
        ).reads(reading)

    @cached_property
    def sites(self) -> SiteMap:
        """Where small modules can sit (InputError where the architecture is not known)."""
        return site_map(self.network, self.layout)

    def described(self, layout: Sequence[Stack] | None) -> Trunk:
        """Return the same network with another description of where its layers are."""
        other = copy(self)
        vars(other).pop("sites", None)
        other.layout = layout
        return other

    def make_room(self, m: int) -> None:
        """Refuse `m` tokens in front of a prompt where that leaves no position for it."""
        if self.positions is not None and m >= self.positions:
            raise InputError(
                f"m: {m} tokens in front of a prompt leave no position for it; this network has "
                f"{self.positions}"
            )

    @property
    def body(self) -> Any:
        """The module whose last hidden layer the head reads."""
        return self._narrowed.body

    @property
    def n_tokens(self) -> int:
        """Tokens that the tokenizer knows."""
        return len(self.tokenizer)

    @property
    def device(self) -> Any:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def read(self, batch: ChoiceBatch) -> tuple[TokenLogProbs, Tensor]:
        """Run the network once and read the choices' tokens; the head sees no other position.

        Returns
        -------
        (TokenLogProbs, Tensor)
            And the last hidden states that predict each example's first token, (B, H).
        """
        batch = batch.to(self.device)
        inputs: dict[str, Any] = dict(batch.inputs)
        for name, value in inputs.items():
            if value.ndim == 4:
                lowest = torch.finfo(self.network.dtype).min
                inputs[name] = value.clamp(min=lowest).to(self.network.dtype)
        if self.positions is not None:
            own = inputs.get("position_ids")
            last = inputs["input_ids"].shape[1] if own is None else int(own.max()) + 1
            if last > self.positions:
                raise InputError(
                    f"model: a row takes {last} positions, with what stands in front of it, and "
                    f"this network has {self.positions}; lower max_tokens"
                )
        if self.kind != "masked":
            inputs["use_cache"] = False
        at, place = torch.unique(batch.at, dim=1, return_inverse=True)  # choices share the slot
        output, states = self._narrowed(inputs, *at)
        log_p = output.logits[0].float().log_softmax(-1)
        log_probs, states = log_p[place, batch.targets], states[place]
        mean = self.reading == "answers"
        counts = torch.bincount(batch.example[batch.choice])
        hidden = states[counts.cumsum(0) - counts]
        tokens = TokenLogProbs(log_probs, batch.choice, batch.example, batch.correct, mean, hidden)
        return tokens, hidden


def kind_of(network: Any) -> str:
    """Return the kind of language model that a network is."""
    name, config = type(network).__name__, network.config
    if config.is_encoder_decoder and name.endswith(
        ("ForConditionalGeneration", "EncoderDecoderModel")
    ):
        relative = hasattr(config, "relative_attention_num_buckets")
        if not relative and config.model_type != _TOLD_POSITIONS:
            raise ModelError(
                f"model: the decoder of {name} counts positions from its start and cannot be told "
                "otherwise, so that choices cannot stand side by side in it; take one of T5's "
                "family or an encoder-decoder of two BERTs"
            )
        return "seq2seq"
    if name.endswith("ForMaskedLM"):
        return "masked"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    raise ModelError(
        f"model: {name} is not an encoder-decoder, causal or masked language model; it has no head "
        "to score choices with"
    )

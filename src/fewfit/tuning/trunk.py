"""The frozen network under all tuning: loaded once, never changed, read at the choices' tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewfit.errors import InputError, ModelError
from fewfit.tuning.choices import ChoiceBatch, ChoiceEncoder, Packer
from fewfit.tuning.losses import TokenLogProbs

MAX_TOKENS = 256
"""Of a prompt, in T-Few's recipe."""

_LOADERS = {
    "seq2seq": "AutoModelForSeq2SeqLM",
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
}
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


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

    Attributes
    ----------
    kind : {"seq2seq", "causal", "masked"}
    encoder : ChoiceEncoder
    pack : Packer
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        *,
        identity: Mapping[str, str],
        spec: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.network, self.tokenizer = network.eval().requires_grad_(False), tokenizer
        self.identity, self.spec = dict(identity), spec
        self.kind = kind_of([type(network).__name__], bool(network.config.is_encoder_decoder))
        self.encoder = ChoiceEncoder(tokenizer, self.kind, max_tokens=max_tokens)
        config = network.config
        pad = next((i for i in (config.pad_token_id, tokenizer.pad_token_id) if i is not None), 0)
        start = getattr(config, "decoder_start_token_id", None)
        self.pack = Packer(
            self.kind, pad, start if start is not None else pad, tokenizer.mask_token_id
        )
        if self.kind == "masked" and tokenizer.mask_token_id is None:
            raise ModelError("model: the tokenizer of this masked model has no mask token")
        body = network.get_decoder() if self.kind == "seq2seq" else network.base_model
        body.register_forward_hook(self._narrow)
        self._at: Tensor | None = None
        self._taken: Tensor | None = None

    @classmethod
    def load(
        cls,
        spec: str,
        *,
        dtype: str = "float32",
        device: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> Trunk:
        """Load a checkpoint from a folder; only safetensors are read, and no code.

        Parameters
        ----------
        spec : str
            ``"hf:FOLDER"``, or the folder.
        dtype : {"float32", "bfloat16"}, default="float32"
            Of the frozen weights; what is trained is always float32.
        device : str, optional
            Left out, "cuda" where there is one, else "cpu".

        Raises
        ------
        InputError, ModelError
            If there is no such folder, or no language model can be read from it.
        """
        import transformers
        from transformers import AutoConfig, AutoTokenizer

        if dtype not in ("float32", "bfloat16"):
            raise InputError(f"model: dtype is float32 or bfloat16 for tuning, not {dtype!r}")
        folder = Path(spec.removeprefix("hf:")).expanduser()
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"model: {spec!r} is not a folder with a checkpoint (config.json, safetensors, "
                "tokenizer.json); tuning needs the weights in a folder"
            )
        try:
            config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind = kind_of(config.architectures or (), bool(config.is_encoder_decoder))
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            with quiet():
                network, report = getattr(transformers, _LOADERS[kind]).from_pretrained(
                    folder,
                    dtype=getattr(torch, dtype),
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except ModelError:
            raise
        except Exception as error:  # whatever a broken file makes it raise
            raise ModelError(f"model: {spec!r} cannot be loaded: {error}") from error
        if report["missing_keys"]:
            raise ModelError(f"model: {spec!r} lacks the weight {min(report['missing_keys'])!r}")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            network.to(device),
            tokenizer,
            identity={**fingerprint(folder), "dtype": dtype, "max_tokens": str(max_tokens)},
            spec=f"hf:{folder}",
            max_tokens=max_tokens,
        )

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
        inputs = dict(batch.inputs)
        for name, value in inputs.items():
            if value.ndim == 4:
                lowest = torch.finfo(self.network.dtype).min
                inputs[name] = value.clamp(min=lowest).to(self.network.dtype)
        self._at = batch.at
        try:
            extra = {} if self.kind == "masked" else {"use_cache": False}
            logits = self.network(**inputs, **extra).logits[0]
            states = self._taken
        finally:
            self._at = self._taken = None
        log_probs = -cross_entropy(logits.float(), batch.targets, reduction="none")
        tokens = TokenLogProbs(log_probs, batch.choice, batch.example, batch.correct)
        counts = torch.bincount(batch.example[batch.choice])
        return tokens, states[counts.cumsum(0) - counts]  # pyright: ignore[reportOptionalSubscript]

    def _narrow(self, module: Any, args: Any, output: Any) -> Any:
        """Keep only the hidden states that are read, as one row of a batch."""
        if self._at is None:
            return output
        self._taken = states = output.last_hidden_state[self._at[0], self._at[1]]
        output.last_hidden_state = states.unsqueeze(0)
        return output


def kind_of(architectures: Sequence[str], encoder_decoder: bool) -> str:
    """Return the kind of language model that a class of transformers is."""
    name = architectures[0] if architectures else ""
    if name.endswith("ForConditionalGeneration") and encoder_decoder:
        return "seq2seq"
    if name.endswith("ForMaskedLM"):
        return "masked"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    raise ModelError(
        f"model: {name or 'a checkpoint without architectures'} is not an encoder-decoder, causal "
        "or masked language model; it has no head to score choices with"
    )


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash a checkpoint's weights, config and tokenizer."""
    files = {
        "weights": sorted(folder.glob("model*.safetensors")),
        "config": [folder / "config.json"],
        "tokenizer": [folder / name for name in _TOKENIZER if (folder / name).exists()],
    }
    return {f"{role}_sha256": _digest(paths) for role, paths in files.items()}


def _digest(paths: Sequence[Path]) -> str:
    entries = []
    for path in paths:
        with path.open("rb") as stream:
            entries.append([path.name, hashlib.file_digest(stream, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing its own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

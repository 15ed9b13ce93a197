"""The one place where weights and tokenizers are loaded: safetensors only, no code."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from fewfit.errors import InputError, MissingExtraError, ModelError
from fewfit.models.local.files import Checkpoint, Kind

DTYPES = ("float32", "bfloat16", "float16")

CLASSES: dict[Kind, str] = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


class Loaded(NamedTuple):
    """A network of transformers, frozen and in evaluation mode, and its tokenizer."""

    network: Any
    tokenizer: Any


def load(point: Checkpoint, *, dtype: str, device: str, who: str = "hf") -> Loaded:
    """Load the weights and the tokenizer of a checkpoint.

    Parameters
    ----------
    point : Checkpoint
    dtype : {"float32", "bfloat16", "float16"}
    device : str
    who : str, default="hf"
        The extra that brings what is imported here.

    Raises
    ------
    MissingExtraError, InputError, ModelError
        If torch is missing, the dtype is another one, the checkpoint cannot be had or read, or its
        file lacks a weight.
    """
    return Loaded(
        load_network(point, point.kind, dtype=dtype, device=device, who=who),
        load_tokenizer(point.description, point.name, who=who),
    )


def load_network(point: Checkpoint, kind: Kind, *, dtype: str, device: str, who: str = "hf") -> Any:
    """Load the weights of a checkpoint as a network of one kind; see :func:`load`."""
    import_torch(f"{point.name}:", who)
    import torch
    import transformers

    if dtype not in DTYPES:
        raise InputError(f"model: dtype is one of {DTYPES}, not {dtype!r}")
    name = CLASSES[kind]
    part = point.config.get("is_encoder_decoder") or point.architecture.endswith("EncoderModel")
    if kind == "encoder" and part:  # of an encoder-decoder
        name = "AutoModelForTextEncoding"
    with uncollected():
        loader = getattr(transformers, name)
    folder = point.everything
    try:
        with no_progress_bar(), uncollected():
            network, report = loader.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        network = network.to(device).eval().requires_grad_(False)
    except Exception as error:  # whatever a broken file makes it raise
        raise ModelError(f"{point.name}: the weights cannot be loaded: {error}") from error
    missing = [name for name in report["missing_keys"] if not _never_read(kind, name)]
    if missing:
        raise ModelError(
            f"{point.name}: the file lacks the weight {min(missing)!r}, which would be random "
            "numbers; take a checkpoint that was saved with its language model's head"
        )
    return network


def load_tokenizer(folder: Path, name: str, *, who: str = "hf") -> Any:
    """Load a tokenizer that has a ``tokenizer.json``, or can be turned into one."""
    import_torch(f"{name}:", who)
    with uncollected():
        from transformers import AutoTokenizer

    try:
        wrapper: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # whatever a broken file makes it raise
        raise ModelError(f"{name}: the tokenizer cannot be loaded: {error}") from error
    if getattr(wrapper, "backend_tokenizer", None) is None:
        raise ModelError(f"{name}: only tokenizers with a tokenizer.json are supported")
    return wrapper


def default_device() -> str:
    """Return "cuda" or "mps" where there is one, else "cpu"."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def default_dtype(device: str, *, fast: bool = False) -> str:
    """Return bfloat16 on a CUDA device that has it, else float32.

    Parameters
    ----------
    device : str
    fast : bool, default=False
        Whether it is bfloat16 on a processor too, where its instructions multiply it.
    """
    import torch

    half = device.startswith("cuda") and torch.cuda.is_bf16_supported()
    if fast and device == "cpu":
        given = getattr(torch.cpu, "get_capabilities", dict)()  # of newer versions of torch
        half = any(value is True and "bf16" in name for name, value in given.items())
        half = half or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())
    return "bfloat16" if half else "float32"


def check_extra(who: str, extra: str) -> None:
    """Refuse to go on where torch or transformers is not installed; neither is imported for it."""
    for name in ("torch", "transformers"):
        try:
            found = find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            command = f'{who} needs {name}: pip install "fewfit[{extra}]"'
            raise MissingExtraError(command) from None


def import_torch(who: str, extra: str) -> None:
    """Import torch and transformers, or say how to get them (MissingExtraError)."""
    try:
        with uncollected():
            import torch  # noqa: F401
            import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f'{who} needs {error.name}: pip install "fewfit[{extra}]"'
        ) from None


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage while what is made stays: of an import that takes a fifth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar and logging reports while weights are loaded."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _never_read(kind: Kind, name: str) -> bool:
    """Whether nothing reads a weight: the pooler of an encoder stands behind its states."""
    return kind == "encoder" and "pooler." in name

"""How a checkpoint is named in one line, with its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from fewfit.errors import InputError
from fewfit.models.local.files import Checkpoint

OPTIONS = ("dtype", "max_tokens", "multi_token", "space")
CHAT_OPTIONS = ("chat", "system", "prefix")


def split_trained(spec: str) -> tuple[str, dict[str, Any], list[str]]:
    """Split the spec of a language model whose weights are trained beside.

    Returns
    -------
    (str, dict, list of str)
        The name, the options that training heeds (`dtype`, `max_tokens` and `revision`), and the
        names of others, which say how a frozen model is asked.
    """
    name, options = parse_spec(spec, (*OPTIONS, *CHAT_OPTIONS))
    heeded = {k: v for k, v in options.items() if k in ("dtype", "max_tokens", "revision")}
    return name, heeded, sorted(options.keys() - heeded)


def parse_spec(spec: str, options: Sequence[str] = OPTIONS) -> tuple[str, dict[str, Any]]:
    """Split ``[SCHEME:]NAME_OR_PATH[@REVISION][?option=value&...]``; an existing folder is a path.

    Parameters
    ----------
    spec : str
        With or without ``hf:`` or ``encoder:`` before it.
    options : sequence of str
        Those that may be given.

    Returns
    -------
    (str, dict)
        The name, and the options for the constructor.

    Raises
    ------
    InputError
    """
    name = spec.removeprefix("hf:").removeprefix("encoder:")
    given: dict[str, Any] = {}
    if not Checkpoint(name).local_folder and "?" in name:
        name, _, query = name.rpartition("?")
        behind = f"model: what stands behind '{name}?'"  # which may hold a token, and is not said
        try:
            pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True)
        except ValueError as error:
            raise InputError(f"{behind} is not option=value") from error
        given = dict(pairs)
        if set(given) - set(options) or len(given) != len(pairs):
            raise InputError(
                f"{behind}: each of {list(options)} may be given once, nothing else; a token of "
                "the hub is put into the environment, as HF_TOKEN"
            )
        if "max_tokens" in given:
            if not given["max_tokens"].isdecimal():
                raise InputError(f"{behind}: max_tokens is not a number")
            given["max_tokens"] = int(given["max_tokens"])
        if "chat" in given:
            if given["chat"] not in ("true", "false"):
                raise InputError(f"{behind}: chat is true or false")
            given["chat"] = given["chat"] == "true"
    if not Checkpoint(name).local_folder and "@" in name:
        name, _, given["revision"] = name.rpartition("@")
    if not name or given.get("revision") == "":
        raise InputError(f"model: {spec!r} is not NAME_OR_PATH[@REVISION] after its kind")
    return name, given

"""A file that describes how an architecture names its layers."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fewfit.errors import InputError
from fewfit.tuning.layouts import Stack

EXAMPLE = (
    'stack = [{ name = "decoder", blocks = "model.layers", self = { q = "self_attn.q_proj", '
    'k = "self_attn.k_proj", v = "self_attn.v_proj", o = "self_attn.o_proj" }, '
    'ffn_in = ["mlp.gate_proj", "mlp.up_proj"], ffn_out = "mlp.down_proj" }]'
)
"""A file that describes Llama's layers, in one line, as an error's message is."""

_Path = Annotated[str, StringConstraints(strict=True, min_length=1, strip_whitespace=True)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Attention(_Part):
    q: _Path | None = None
    k: _Path | None = None
    v: _Path | None = None
    qkv: _Path | None = None
    qkv_by_head: _Path | None = None
    o: _Path

    def paths(self, where: str) -> dict[str, str]:
        given = self.model_dump(exclude_none=True)
        if given.keys() not in ({*"qkvo"}, {"qkv", "o"}, {"qkv_by_head", "o"}):
            raise InputError(
                f"{where}: needs q, k, v and o; or qkv and o; or qkv_by_head and o; it has "
                f"{', '.join(given)}"
            )
        return given


class _After(_Part):
    self_: _Path | None = Field(default=None, alias="self")
    cross: _Path | None = None
    ffn: _Path | None = None


class _Stack(_Part):
    name: Literal["encoder", "decoder"]
    blocks: _Path
    self_: _Attention = Field(alias="self")
    cross: _Attention | None = None
    ffn_in: Annotated[list[_Path], Field(min_length=1)]
    ffn_out: _Path
    embeddings: _Path | None = None
    after: _After = _After()
    experts: _Path | None = None


class _File(_Part):
    stack: Annotated[list[_Stack], Field(min_length=1, max_length=2)]


def read_sites(path: str | Path) -> tuple[Stack, ...]:
    """Read the description of an architecture.

    Parameters
    ----------
    path : str or Path
        TOML, or JSON where the name ends in ``.json``: one or two tables ``stack`` with the
        attributes of :class:`Stack`, where ``self`` and ``cross`` stand for `attention`.

    Returns
    -------
    tuple of Stack
        The `layout` of :func:`site_map`.

    Raises
    ------
    InputError
        If the file cannot be read, or something in it is missing, unknown or of another kind; the
        message says what and where.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"sites: {path} cannot be read: {error}") from error
    return layout_from(content, str(path))


def layout_from(content: Any, origin: str) -> tuple[Stack, ...]:
    """Return the layout that the content of such a file describes; `origin` names it in errors."""
    try:
        stacks = _File.model_validate(content).stack
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(f"sites: {origin}: {where}: {first['msg']}") from error
    if len({stack.name for stack in stacks}) < len(stacks):
        raise InputError(f"sites: {origin}: two stacks have the name {stacks[0].name!r}")
    layout: list[Stack] = []
    for stack in stacks:
        given = {"self": stack.self_, "cross": stack.cross}
        layout.append(
            Stack(
                stack.name,
                stack.blocks,
                {
                    which: attention.paths(f"sites: {origin}: {stack.name}.{which}")
                    for which, attention in given.items()
                    if attention is not None
                },
                tuple(stack.ffn_in),
                stack.ffn_out,
                stack.embeddings or "",
                stack.after.model_dump(exclude_none=True, by_alias=True),
                stack.experts or "",
            )
        )
    return tuple(layout)


def content_of(layout: Sequence[Stack]) -> dict[str, Any]:
    """Return what :func:`layout_from` reads, as plain values for a manifest."""
    stacks: list[dict[str, Any]] = []
    for stack in layout:
        entries = {**stack._asdict(), **{k: dict(v) for k, v in stack.attention.items()}}
        entries |= {"ffn_in": list(stack.ffn_in), "after": dict(stack.after)}
        del entries["attention"]
        stacks.append({key: value for key, value in entries.items() if value})
    return {"stack": stacks}

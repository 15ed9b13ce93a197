"""A causal model that goes on writing where the slot is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.models.generation import Writing, Written
from fewfit.models.local.network import check_ids
from fewfit.models.local.texts import Encoded

_TAIL = 24  # of the last tokens a stop text is looked for


def write_batch(
    network: Any, decode: Any, batch: Sequence[Encoded], how: Writing, pad_id: int, name: str
) -> list[Written]:
    """Write a text for each prompt of a batch, greedily.

    Parameters
    ----------
    network : transformers.PreTrainedModel
    decode : callable
        From token ids to their text, special tokens left out.
    batch : sequence of Encoded
    how : Writing
    pad_id : int
    name : str
        For messages.
    """
    ids, ended = write_tokens(network, decode, [item.ids for item in batch], how, pad_id, name)
    found: list[Written] = []
    for item, own, whole in zip(batch, ids, ended, strict=True):
        text = how.cut(decode(own))
        found.append(Written(text, len(item.ids) + len(own), whole))
    return found


def write_tokens(
    network: Any,
    decode: Any,
    prompts: Sequence[Sequence[int]],
    how: Writing,
    pad_id: int,
    name: str,
) -> tuple[list[list[int]], list[bool]]:
    """Return the tokens that follow each prompt, without the end token, and whether they end."""
    import torch
    from transformers import GenerationConfig, StoppingCriteria

    n_rows = len(network.get_input_embeddings().weight)
    check_ids([Encoded(list(ids), len(ids), False) for ids in prompts], n_rows, name)
    longest = max(map(len, prompts))
    shape = (len(prompts), longest)
    ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for row, own in enumerate(prompts):  # what is written stands behind the end of each
        ids[row, longest - len(own) :] = own
        mask[row, longest - len(own) :] = 1

    class Stopped(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            tails = input_ids[:, longest:][:, -_TAIL:].tolist()
            met = [any(stop in decode(tail) for stop in how.stop) for tail in tails]
            return torch.tensor(met, device=input_ids.device)

    ends = end_tokens(network)
    # None of the checkpoint's own way of sampling is meant.
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=how.max_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad_id,
    )
    own = network.generation_config
    try:
        network.generation_config = config
        with torch.inference_mode():
            out: Any = network.generate(
                torch.from_numpy(ids).to(network.device),
                attention_mask=torch.from_numpy(mask).to(network.device),
                stopping_criteria=[Stopped()] if how.stop else None,
            )
    finally:
        network.generation_config = own
    found, whole = [], []
    for row in out[:, longest:].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), None)
        row = row if end is None else row[:end]
        stopped = any(stop in decode(row) for stop in how.stop)
        while stopped and row and row[-1] == pad_id:  # behind what was stopped before the others
            row = row[:-1]
        found.append(row)
        whole.append(end is not None or stopped or len(row) < how.max_tokens)
    return found, whole


def end_tokens(network: Any) -> list[int]:
    """Return the tokens with which a checkpoint ends what it writes."""
    given = getattr(network.generation_config, "eos_token_id", None)
    if given is None:
        given = getattr(network.config.get_text_config(), "eos_token_id", None)
    return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]


def next_scores(network: Any, ids: Sequence[int], name: str) -> NDArray[np.float32]:
    """Return the logits after each of some tokens, (T, V), float32: one forward pass."""
    import torch

    n_rows = len(network.get_input_embeddings().weight)
    check_ids([Encoded(list(ids), len(ids), False)], n_rows, name)
    with torch.inference_mode():
        out = network(input_ids=torch.tensor([list(ids)], device=network.device))
    return out.logits[0].float().cpu().numpy()

"""(IA)^3 of several tasks in one batch: each row is scaled by the vectors of its own task.

Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", NeurIPS 2022, section 3.3: activations are multiplied, so that rows of different tasks
need no pass of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fewfit.gathering import gather
from fewfit.models.local import finish, read_in_batches
from fewfit.observations import Batch, Observations, ScoreSpace
from fewfit.prompts import Prompt
from fewfit.tuning.adapters.ia3 import IA3
from fewfit.tuning.choices import ChoiceExample
from fewfit.tuning.tuned import Row, TunedModel


class _Read(NamedTuple):
    """What was read of some rows: their scores, one array each, and their hidden states."""

    rows: Sequence[Row]
    scores: Sequence[NDArray[Any]]
    hidden: NDArray[Any]


def observe_mixed(
    groups: Sequence[tuple[TunedModel, Sequence[Prompt], Sequence[str]]],
) -> list[Observations]:
    """Answer prompts for several (IA)^3 tasks on one network, rows of all of them in each batch.

    Parameters
    ----------
    groups : sequence of (TunedModel, sequence of Prompt, sequence of str)
        A task, what it is asked, and its label words. All have the same
        :attr:`TunedModel.mixture`. A prompt occurs once in a group.

    Returns
    -------
    list of Observations
        One for each group, in the order of its prompts; what each model alone says, but for
        rounding.
    """
    models = list(dict.fromkeys(model for model, _, _ in groups))
    first = models[0]
    network = first._network
    assert network is not None
    trunk = first._loaded[0]
    flat = [(g, i) for g, (_, prompts, _) in enumerate(groups) for i in range(len(prompts))]

    def encode(window: NDArray[np.intp]) -> list[Row]:
        examples = []
        for g, i in (flat[place] for place in window):
            model, prompts, words = groups[g]
            task = models.index(model)
            examples.append(ChoiceExample(prompts[i], tuple(words), 0, task))
        return [Row(trunk.encoder.encode(example)) for example in examples]

    def ask(rows: Sequence[Row]) -> _Read:
        present = sorted({row.item.task for row in rows})
        vectors = IA3(trunk.sites, n_tasks=len(present)).to(trunk.device)
        for k, task in enumerate(present):
            vectors.set(models[task]._loaded[1].tensors(), k)
        place = {task: k for k, task in enumerate(present)}
        with torch.inference_mode():
            batch = trunk.pack([row.item for row in rows]).to(trunk.device)
            own = [place[task] for task in batch.tasks.tolist()]
            with vectors.on(trunk.network), vectors.rows(own):
                tokens, hidden = trunk.read(batch)
        ends = np.cumsum([len(row.item.choices) for row in rows])[:-1]
        return _Read(rows, np.split(tokens.beta.cpu().numpy(), ends), hidden.float().cpu().numpy())

    sizes = [len(groups[g][1][i].user_text) for g, i in flat]
    found: list[list[Batch]] = [[] for _ in groups]
    with network.lock:
        for places, read in read_in_batches(sizes, encode, ask, first._budget):
            owners = np.array([flat[place][0] for place in places])
            for g in np.unique(owners).tolist():
                own = np.flatnonzero(owners == g).tolist()
                answers = finish(
                    [read.rows[j] for j in own],
                    tuple(groups[g][2]),
                    ScoreSpace.LOGPROB,
                    np.stack([read.scores[j] for j in own]),
                    read.hidden[own],
                )
                found[g].append((np.array([flat[places[j]][1] for j in own]), answers))
    return [
        gather(batches, len(prompts))
        for batches, (_, prompts, _) in zip(found, groups, strict=True)
    ]

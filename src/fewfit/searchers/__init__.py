"""Searchers: each asks a frozen model prompts of its own, within an exact budget of queries."""

from __future__ import annotations

import inspect
from typing import Any

from fewfit.searchers.bbt import black_box_tune
from fewfit.searchers.policy_network import reinforce_prompt
from fewfit.searchers.prompt_search import search_prompt
from fewfit.searchers.unsupervised import learn_unsupervised

SEARCHERS: dict[str, Any] = {
    "black-box-tuning": black_box_tune,
    "policy-network": reinforce_prompt,
    "prompt-search": search_prompt,
    "unsupervised-prompts": learn_unsupervised,
}
"""Name -> searcher."""

_GIVEN = {"model", "template", "rows", "texts", "y", "verbalizer", "labels", "calibration"}
_GIVEN |= {"max_queries", "seed", "view"}


def search_options(name: str) -> dict[str, Any]:
    """Return what a user may say of a searcher whose data are given, name -> default.

    Words that it needs are None: left out, they are taken from the examples.
    """
    taken = inspect.signature(SEARCHERS[name]).parameters.values()
    return {
        p.name: None if p.default is p.empty else p.default for p in taken if p.name not in _GIVEN
    }


__all__ = [
    "SEARCHERS",
    "black_box_tune",
    "learn_unsupervised",
    "reinforce_prompt",
    "search_options",
    "search_prompt",
]

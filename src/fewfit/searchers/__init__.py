"""Searchers: each asks a frozen model prompts of its own, within an exact budget of queries."""

from __future__ import annotations

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

__all__ = [
    "SEARCHERS",
    "black_box_tune",
    "learn_unsupervised",
    "reinforce_prompt",
    "search_prompt",
]

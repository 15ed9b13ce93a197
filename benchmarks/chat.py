"""A chat model's answer, an embedding, and both: what each is worth, and what it costs.

    python -m benchmarks chat [--sets sst2,trec,mpqa,agnews] [--shots 4,16] [--rows 100] [--seeds 2]

SmolLM2-135M-Instruct (``fewfit download smollm2``) is asked through its chat template for one of
the label words, as a server that enforces a schema asks it at temperature 0: its answer is the word
that it gives the highest probability where it begins to speak. Nothing of the probabilities is
kept: one answer a text, scored as ``answers=text`` scores it. The hidden states are those of the
embedded encoder. Test rows are the first of a permutation of the test split, seed 0. Writes
``results/chat.json``, a set at a time.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import data_folder, read_split
from fewfit.compare import compare
from fewfit.estimators.opening import open_model
from fewfit.models.base import FrontModel
from fewfit.models.capabilities import Capabilities
from fewfit.models.paired import PairedModel
from fewfit.observations import Batch
from fewfit.prompts import Prompt

TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "sst2": ("{text}\nIs the review positive or negative? {mask}", {}),
    "trec": (
        "{text}\nDoes the question ask for a description, a thing, an abbreviation, a person, a "
        "number or a place? {mask}",
        {"entity": "thing", "human": "person", "location": "place"},
    ),
    "mpqa": ("{text}\nIs the phrase positive or negative? {mask}", {}),
    "agnews": (
        "{text}\nIs the news about politics, sports, business or technology? {mask}",
        {"World": "politics", "Sports": "sports", "Business": "business", "Sci/Tech": "technology"},
    ),
}


class Answered(FrontModel):
    """A model of which only the answer is seen: the most probable label word."""

    @property
    def spec(self) -> str | None:
        return f"{self.model.spec}, answers"

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.model.capabilities, hidden=False, resolution=1.0)

    @property
    def identity(self) -> Mapping[str, str]:
        return {**self.model.identity, "seen": "the answer"}

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        for where, answers in self.model.stream(prompts, words):
            assert answers.scores is not None
            said = np.eye(len(words))[answers.scores.argmax(axis=1)]
            scores = np.log((said + 1 / len(words)) / 2)
            yield where, replace(answers, scores=scores, hidden=None)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hf:smollm2?chat=true&space=logprob&dtype=bfloat16")
    parser.add_argument("--sets", default=",".join(TASKS))
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    chat, encoder = Answered(open_model(args.model, "default")), open_model("embedded", "default")
    content: dict[str, Any] = {**vars(args), "encoder": encoder.spec, "sets": {}}
    for name in args.sets.split(","):
        content["sets"][name] = list(rows(name, args, chat, encoder))
        (RESULTS / "chat.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rows(name: str, args: Any, chat: Any, encoder: Any) -> Iterator[dict[str, Any]]:
    """Yield what a comparison found, for the answer alone, the vector alone, and both."""
    template, words = TASKS[name]
    train, test = (read_split(data_folder(), name, split) for split in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(test))[: args.rows]
    test = [test[i] for i in order]
    classes = sorted({str(row["label"]) for row in train})
    labels = {label: words.get(label, label) for label in classes}
    found = compare(
        *([row["text"] for row in train], [row["label"] for row in train]),
        *([row["text"] for row in test], [row["label"] for row in test]),
        template=template,
        labels=labels,
        methods=["zero-shot", "offset-regression"],
        models=[chat, encoder, PairedModel(chat, encoder)],
        shots=[int(n) for n in args.shots.split(",")],
        seeds=args.seeds,
        store=None,
        drop_overlap=True,
    )
    seen = {chat.spec: "answer", encoder.spec: "embedding"}
    for row in found.summaries:
        kind = seen.get(row.model, "both")
        kept = {"method": row.method, "seen": kind, "shots": row.shots}
        kept |= {"accuracy": round(row.accuracy, 4), "sd": row.sd}
        kept |= {"queries": row.queries, "tokens": row.tokens}
        print(name, kept, flush=True)
        yield kept


if __name__ == "__main__":
    main()

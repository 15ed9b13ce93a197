"""Accuracy from a few labels, on real data sets.

    python -m benchmarks.few_shot --data DIR [--model embedded] [--sets sst2,agnews,...]

DIR holds ``<set>/{train,test}.jsonl.gz``; prompts come from ``tasks.toml``. Writes
``results/few_shot_<model>.json``, from which ``python -m benchmarks.report`` makes RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.tasks import TASKS, run_set
from fewfit.classifier import open_model
from fewfit.compare import summarise
from fewfit.decoders import Decoder, DecT, LinearProbe, OffsetLogisticRegression, ZeroShot

METHODS: dict[str, Decoder] = {
    "zero-shot": ZeroShot(),
    "linear probe": LinearProbe(),
    "DecT": DecT(),
    "DecT, lambda = 1": DecT(lam=1.0),
    "offset regression": OffsetLogisticRegression(),
}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--name", help="of the model, in the results; default: --model")
    parser.add_argument("--sets", default="sst2,agnews,trec,dbpedia,clinc150")
    parser.add_argument("--shots", default="1,4,16")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--test-rows", type=int)
    args = parser.parse_args()

    model = open_model(args.model, "default")
    results = []
    for name in args.sets.split(","):
        run = run_set(
            name,
            args.data,
            model,
            METHODS,
            shots=[int(n) for n in args.shots.split(",")],
            seeds=range(args.seeds),
            test_rows=args.test_rows,
        )
        for item in summarise(run.cells):
            print(f"{name:10} {item.shots:3} {item.method:18} {item.accuracy:.3f} ± {item.sd:.3f}")
        results.append(
            {
                "set": name,
                "template": TASKS[name]["template"],
                "classes": run.n_classes,
                "test_rows": run.n_test,
                "queries": run.queries,
                "rows": [vars(item) for item in summarise(run.cells)],
            }
        )
    name = args.name or args.model
    path = Path(__file__).parent / "results" / f"few_shot_{name.replace(':', '_')}.json"
    text = {"model": name, "seeds": args.seeds, "sets": results}
    path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

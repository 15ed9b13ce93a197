"""Run the committed benchmarks, as far as this machine can, and write RESULTS.md.

    python -m benchmarks [NAME] [OPTIONS]

NAME is an experiment, a file under ``experiments/`` without its suffix, or one of the programs:
their options are said by ``python -m benchmarks NAME --help``. ``report`` only writes RESULTS.md.
Without a name every experiment and the programs that need no options run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.run import run_experiment
from benchmarks.spec import FOLDER, read_experiment
from benchmarks.tasks import data_folder
from fewfit.errors import FewfitError, InputError

PROGRAMS = {
    "start-up": "speed.start_up",
    "speed": "speed.speed",
    "installed": "speed.installed",
    "grid": "speed.grid",
    "growth": "speed.growth",
    "hf_speed": "speed.hf_speed",
    "http_throughput": "speed.http_throughput",
    "tuning_speed": "speed.tuning_speed",
    "prompt_proofs": "prompt_proofs",
    "prompt_speed": "speed.prompt_speed",
    "weights_speed": "speed.weights_speed",
    "searchers": "searchers",
    "ablation": "ablation",
    "embedded": "embedded",
    "unlabelled": "unlabelled",
    "suggest": "suggest",
    "setfit_grid": "setfit_grid",
    "decision": "decision",
    "temperature": "temperature",
    "pairs": "pairs",
    "vectors": "vectors",
    "chat": "chat",
    "token_shift": "token_shift",
    "answers": "answers",
    "tfew_base": "tfew_base",
    "weights_proofs": "weights_proofs",
    "rate_end": "rate_end",
    "subset_transfer": "subset_transfer",
    "walk": "walk",
    "scale_cost": "scale_cost",
    "serve_load": "serve.load",
    "report": "report",
}
"""Name -> module with ``main(argv)``, for what no experiment file can say."""

ALONE = ("speed", "grid", "growth", "searchers")
"""Programs that run without options."""


def main(argv: Sequence[str]) -> None:
    """Run one benchmark by name, or all."""
    files = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    if argv and argv[0] in PROGRAMS:
        run_program(argv[0], argv[1:])
        if argv[0] == "report":
            return
    else:
        parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--data", type=Path, default=data_folder(), help="<set>/train.jsonl.gz")
        parser.add_argument("--model", action="append", default=[], metavar="SPEC")
        parser.add_argument("--set", action="append", default=[], metavar="NAME", dest="sets")
        parser.add_argument("--shots", type=int, action="append", default=[], metavar="N")
        parser.add_argument("--draws", type=int, metavar="N", help="the first N seeds of the file")
        parser.add_argument("--dry-run", action="store_true")
        args = parser.parse_args(argv)
        unknown = [name for name in args.names if name not in files]
        if unknown:
            raise InputError(f"{unknown[0]!r} is not one of {[*files, *PROGRAMS]}")
        experiments = {name: read_experiment(files[name]) for name in args.names or files}
        for name, file in experiments.items():
            kept = {"models": args.model, "sets": args.sets}
            fewer = {"shots": args.shots or file.shots, "seeds": list(file.seeds)[: args.draws]}
            file = file.model_copy(update=fewer)
            run_experiment(name, file, args.data, **kept, dry=args.dry_run)
        if args.dry_run:
            return
        for name in () if args.names else ALONE:
            run_program(name, [])
    report.main()


def run_program(name: str, argv: Sequence[str]) -> None:
    """Run a program of the table."""
    import_module(f"benchmarks.{PROGRAMS[name]}").main(argv)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FewfitError as error:
        sys.exit(f"error: {error}")

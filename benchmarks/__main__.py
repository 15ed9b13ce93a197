"""Run the committed benchmarks again, as far as this machine can, and write RESULTS.md.

    python -m benchmarks [NAME ...] [--data DIR] [--model SPEC ...] [--dry-run]

NAME is a file under ``experiments/`` without its suffix, or one of the
programs ``speed``, ``grid``, ``growth`` and ``searchers``; all by default.
DIR holds ``<set>/{train,test}.jsonl.gz``; by default it is ``$FEWFIT_SHARED/data``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import grid, growth, report, searchers, speed
from benchmarks.run import run_experiment
from benchmarks.spec import FOLDER, read_experiment
from benchmarks.tasks import data_folder
from fewfit.errors import FewfitError, InputError

PROGRAMS = {
    "speed": speed.main,
    "grid": grid.main,
    "growth": growth.main,
    "searchers": searchers.main,
}


def main() -> None:
    """Run the benchmarks from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--model", action="append", default=[], metavar="SPEC")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    files = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    names = args.names or [*files, *PROGRAMS]
    try:
        unknown = [name for name in names if name not in {*files, *PROGRAMS}]
        if unknown:
            raise InputError(f"{unknown[0]!r} is not one of {[*files, *PROGRAMS]}")
        experiments = {name: read_experiment(files[name]) for name in names if name in files}
        for name, file in experiments.items():
            run_experiment(name, file, args.data, models=args.model, dry=args.dry_run)
    except FewfitError as error:
        sys.exit(f"error: {error}")
    if args.dry_run:
        return
    for name in names:
        if name in PROGRAMS:
            PROGRAMS[name]()
    report.main()


if __name__ == "__main__":
    main()

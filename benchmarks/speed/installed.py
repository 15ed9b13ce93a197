"""How large an installation is, and how long the first answer takes, extra by extra.

    python -m benchmarks installed [--extras base,english,minilm]

For each extra a fresh environment, into which only this tree with the extra is installed, with the
versions of ``constraints.txt`` (torch without CUDA). Sizes are those of all files, pip and compiled
bytecode among them. Then ``fewfit fit`` of four texts, and ``fewfit predict`` of one from a cold
start: wall-clock and CPU seconds, the median of five. What ``embedded`` was before, and needed, is
the extra ``minilm``. Writes ``results/installed.json``; extras that are not named stay there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import RESULTS

TREE = Path(__file__).parents[2]
MODELS = {"base": "embedded", "english": "embedded-en", "minilm": "embedded-en-float32"}
ROWS = "text,label\ngreat fun,a\nwonderful,a\nboring,b\nawful,b\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default=",".join([*MODELS, "hf", "tune", "serve"]))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    path = RESULTS / "installed.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    for extra in args.extras.split(","):
        with tempfile.TemporaryDirectory() as name:
            rows[extra] = _measured(Path(name), extra, args.rounds)
        print(extra, rows[extra], flush=True)
        path.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def _measured(folder: Path, extra: str, rounds: int) -> dict[str, Any]:
    python = folder / "env" / "bin" / "python"
    what = str(TREE) + ("" if extra == "base" else f"[{extra}]")
    pinned = ["--constraint", str(TREE / "constraints.txt")]
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned, what], check=True)
    files = [file for file in (folder / "env").rglob("*") if not file.is_symlink()]
    size = sum(file.stat().st_size for file in files if file.is_file())
    code = sum(file.stat().st_size for file in files if file.suffix == ".pyc")
    found: dict[str, Any] = {"mb": round(size / 1e6), "bytecode_mb": round(code / 1e6)}
    if extra not in MODELS:
        return found
    (folder / "train.csv").write_text(ROWS)
    (folder / "one.csv").write_text("text\nwhat an evening\n")
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    env.pop("PYTHONPATH", None)

    def fewfit(cache: str, *arguments: str) -> tuple[float, float]:
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [python, "-m", "fewfit", *arguments]
        own = {**env, "FEWFIT_CACHE": str(folder / cache)}
        subprocess.run(command, check=True, cwd=folder, env=own, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - start, cpu

    fewfit("first", "fit", "train.csv", "-o", "task", "--model", MODELS[extra])
    times = [fewfit(f"cache{i}", "predict", "task", "one.csv") for i in range(rounds)]
    found["seconds"], found["cpu_seconds"] = (
        round(median(column), 2) for column in zip(*times, strict=True)
    )
    return found

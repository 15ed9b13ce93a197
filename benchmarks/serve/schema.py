"""What the server promises in its OpenAPI, tried: schemathesis asks, and nothing may surprise.

    OMP_NUM_THREADS=1 python -m benchmarks serve_schema --python PYTHON [--examples 100]

PYTHON is that of an environment with schemathesis. ``fewfit serve`` with all that can be enabled is
asked over the loopback for what its own ``/openapi.json`` allows, and for what it does not. Every
answer has to be of a status, a type and a schema that are written there, none of 5xx, and what the
schema refuses has to be refused. That what it allows is accepted is not asked for: a row has the
fields of its task's template, which no schema of all tasks can say. Writes
``results/serve_schema.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import RESULTS
from benchmarks.serve.server import Server, make_tasks
from fewfit.errors import ModelError

OUTPUT = RESULTS / "serve_schema.json"
ENABLED = ("--allow-fit", "--model", "fake")
"""Options that enable what is off by default."""

MEANING = "positive_data_acceptance"
"""The check that is left out."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="of an environment with schemathesis")
    parser.add_argument("--examples", type=int, default=100, help="of each operation and phase")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, *_ = make_tasks(folder / "tasks", 3, model="fake")
        (folder / "tasks" / first).rename(folder / "tasks" / "topics")  # as the examples have it
        with Server(folder / "tasks", ENABLED) as server:
            command = [
                *(str(Path(options.python).parent / "schemathesis"), "run"),
                f"http://127.0.0.1:{server.port}/openapi.json",
                *(
                    "--checks",
                    "all",
                    "--exclude-checks",
                    MEANING,
                    "--max-examples",
                    str(options.examples),
                ),
                *("--seed", str(options.seed), "--workers", "1", "--no-color"),
                *("--request-timeout", "30", "--mode", "all"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            server.get("/health/ready")
            described = json.loads(server.get("/openapi.json"))
    print(done.stdout[-6000:], done.stderr[-2000:])
    operations = sum(len(own) for own in described["paths"].values())
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    if done.returncode not in (0, 1) or cases is None:
        raise ModelError(f"schemathesis did not run: {done.stderr[-500:] or done.stdout[-500:]}")
    failed = re.search(r"(\d[\d,]*) unique failures?", done.stdout)
    content = {
        "operations": operations,
        "cases": int(cases[1].replace(",", "")),
        "unique_failures": int(failed[1].replace(",", "")) if failed else 0,
        "schemathesis": _version(options.python),
        "seed": options.seed,
    }
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content))


def _version(python: str) -> str:
    code = "import importlib.metadata as m; print(m.version('schemathesis'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip()

"""Random arguments and files through the command line: an exit code that is known, no traceback.

``FEWFIT_FUZZ`` says how many cases; a case is made from its number alone.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from fewfit.calibration import CALIBRATIONS
from fewfit.decoders import DECODERS
from fewfit.tables import FORMATS
from tests.cli.helpers import WORDS, check_plain, csv_bytes, run

CASES = int(os.environ.get("FEWFIT_FUZZ", "75"))

ODD = (
    "", " ", "-", "--", "-1", "0", "1", "2", "9" * 30, "1e308", "inf", "nan", "None", "null",
    "text", "label", "TEXT ", "fake", "fake:x", "hf:", "none", "default", "a=b", "=", "a=", "=b",
    "a,b", ",", ";", "|", "\t", "tab", "{mask}", "{text}", "{text} {mask}", "{text} {mask} {mask}",
    "{text.__class__} {mask}", "{", "}}", "{}", "\0", "\ud800", "é", "\u202e", "x" * 300,
    "x/" * 3000, "/proc/self/mem", "/dev/null", "/", "..", "raise", "csv", "xml", "json", "cp1252",
    "utf-16", "base64", "zero-shot", "dect", "ipet", "batch", "ratio", "pmi", "[]", '{"a":',
)  # fmt: skip
OPTIONS = {
    "fit": ("-o", "--text-column", "--label-column", "--model", "--template", "--label", "--labels",
            "--decoder", "--calibration", "--unlabelled", "--multi-label", "--label-separator",
            "--shots", "--seed", "--max-queries", "--errors", "--format", "--delimiter",
            "--encoding", "--json", "--doctor"),
    "predict": ("-o", "--text-column", "--proba", "--model", "--max-queries", "--errors",
                "--multi-label", "--label-separator", "--format", "--delimiter", "--encoding",
                "--json"),
    "evaluate": ("--text-column", "--label-column", "--model", "--max-queries", "--multi-label",
                 "--label-separator", "--format", "--delimiter", "--encoding", "--json"),
    "compare": ("--methods", "--shots", "--seeds", "-o", "--text-column", "--label-column",
                "--template", "--label", "--labels", "--calibration", "--premise",
                "--drop-overlap", "--search-trials", "--price-per-token", "--dry-run", "--format",
                "--delimiter", "--encoding", "--json"),
    "methods": ("--for", "--needs", "--json"),
}  # fmt: skip
FLAGS = {"--multi-label", "--json", "--doctor", "--proba", "--drop-overlap", "--dry-run"}
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".xlsx", ".parquet", ".csv.gz", "")


LIKELY = {
    "-o": ("out", "out.csv", "out.jsonl"),
    "--text-column": ("text", "TEXT ", "text=text", "label"),
    "--label-column": ("label", "Label", "text"),
    "--model": ("fake",),
    "--template": ("{text} It was {mask}.", "A {mask} text: {text}", "{text} {label} {mask}"),
    "--label": ("pos=good", "neg=bad,worse"),
    "--decoder": (*DECODERS, "multi-label"),
    "--calibration": tuple(CALIBRATIONS),
    "--label-separator": (";", ",", " "),
    "--shots": ("1", "2", "3"),
    "--seeds": ("1", "2"),
    "--seed": ("0", "7"),
    "--max-queries": ("0", "3", "100"),
    "--errors": ("raise", "nan"),
    "--format": FORMATS,
    "--delimiter": (",", ";", "tab", "|"),
    "--encoding": ("utf-8", "cp1252", "utf-16"),
    "--methods": ("zero-shot", "tfidf,dect", "linear-probe+batch", "in-context,pet"),
    "--premise": ("It was {mask}.",),
    "--search-trials": ("2", "20"),
    "--price-per-token": ("0", "0.001"),
    "--for": ("decoder", "tuning", "view"),
    "--needs": ("none", "scores", "hidden,scores"),
}


def value_of(rng: random.Random, files: list[Path], option: str = "") -> str:
    """A likely value of the option, an odd one, a file, or characters."""
    if option in LIKELY and rng.random() < 0.7:
        return rng.choice(LIKELY[option])
    pick = rng.random()
    if pick < 0.6:
        return rng.choice(ODD)
    if pick < 0.9:
        return str(rng.choice(files))
    return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x3000)))) for _ in range(4))


def file_of(rng: random.Random, folder: Path) -> Path:
    """A file of some format, as it should be or not."""
    rows: list[list[object]] = [["text", "label"]]
    odd_rows = rng.random() < 0.3
    for i in range(rng.choice((0, 2, 8, 12, 20, 20))):
        text, label = rng.choice(((f"good {rng.random()}", "pos"), (f"bad é {i}", "neg")))
        if odd_rows and rng.random() < 0.2:
            text = rng.choice(("", " ", "a\nb", '"', "é;|", "x" * 50))
            label = rng.choice(("pos", "", "a;b", 1, "POS", "pos;neg"))
        rows.append([text, label])
    kind = rng.choice((0, 0, 2, 2, 2, 2, 2, 1))
    if kind == 0:
        odd = (None, ["pos"], {"a": 1}, 1.5, True, 10**30, "\ud800")
        share = 0.1 * odd_rows
        rows[1:] = [[rng.choice(odd) if rng.random() < share else v for v in r] for r in rows[1:]]
        records = [dict(zip(("text", "label"), row, strict=True)) for row in rows[1:]]
        text = json.dumps(records) if rng.random() < 0.5 else "\n".join(map(json.dumps, records))
        data = text.encode(rng.choice(("utf-8", "utf-16", "utf-8-sig")))
    elif kind == 1:
        data = rng.randbytes(rng.randrange(200))
    else:
        encoding = rng.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252"))
        data = csv_bytes(rng.choice((",", ";", "\t", "|")), encoding, rows)
    likely = (".jsonl", ".json") if kind == 0 else (".csv", ".txt", ".csv.gz")
    suffix = rng.choice(likely if rng.random() < 0.8 else SUFFIXES)
    if rng.random() < 0.8:
        data = gzip.compress(data) if suffix == ".csv.gz" else data
    for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 3))):
        cut = rng.randrange(len(data) + 1)
        change = (b"", bytes([rng.randrange(256)]), data[cut:][:5])
        data = data[:cut] + rng.choice(change) + data[cut + rng.choice((0, 1)) :]
    path = folder / f"f{rng.randrange(3)}{suffix}"
    path.write_bytes(data)
    return path


def command_of(rng: random.Random, folder: Path, artifact: Path) -> list[str]:
    files = [file_of(rng, folder) for _ in range(2)]
    command = rng.choice(list(OPTIONS))
    first = {
        "fit": [files[0]],
        "predict": [artifact, files[0]],
        "evaluate": [artifact, files[0]],
        "compare": files,
        "methods": [rng.choice(ODD)] if rng.random() < 0.5 else [],
    }[command]
    args = [command, *map(str, first)]
    if rng.random() < 0.1:
        args[rng.randrange(1, len(args) + 1) :] = [value_of(rng, files)]
    if command in ("fit", "compare") and rng.random() < 0.99:
        args += ["--model", "fake"]
    if command == "fit" and rng.random() < 0.9:
        args += ["-o", str(folder / "out")]
    if command == "compare":
        args += ["--shots", "1", "--seeds", "1", "--methods", "zero-shot,tfidf,dect"]
        args += ["--drop-overlap"] if rng.random() < 0.8 else []
    for option in rng.sample(OPTIONS[command], rng.choice((0, 1, 1, 2, 3))):
        args += [option] if option in FLAGS else [option, value_of(rng, files, option)]
    return args


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "train.csv").write_bytes(csv_bytes())
    args = ["-o", folder / "task", "--model", "fake", "--store", "none", *WORDS]
    run("fit", folder / "train.csv", *args)
    return folder / "task"


def test_no_arguments_and_no_file_give_a_traceback(artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for number in range(CASES):
        rng = random.Random(number)
        folder = tmp_path / str(number % 20)
        folder.mkdir(exist_ok=True)
        args = command_of(rng, folder, artifact)
        if args[0] != "methods":
            args += ["--store", "none"]
        piped = rng.choice((csv_bytes(), b"", rng.randbytes(50)))
        result = run(*args, code=None, input=piped)
        try:
            check_plain(result)
        except AssertionError as error:
            raise AssertionError(f"case {number}: {args}") from error

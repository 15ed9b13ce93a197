from __future__ import annotations

import csv
import gzip
import json

from benchmarks.walk import JOBS, MAILS, make_data, report, run
from fewfit.tables import open_table


def test_the_files_of_the_walk_are_those_of_the_jobs(tmp_path):
    kinds = ("human", "location", "number")
    sets = {
        "trec": [{"text": f"what is {k} {i}", "label": k} for k in kinds for i in range(20)],
        "clinc150": [{"text": f"do {k} {i}", "label": k} for k in "abc" for i in range(6)],
        "snli": [{"text_a": f"a {i}", "text_b": "b", "label": "yes"} for i in range(9)],
    }
    for name, rows in sets.items():
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            with gzip.open(tmp_path / name / f"{split}.jsonl.gz", "wt") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in rows)
    work = tmp_path / "work"
    work.mkdir()
    make_data(work, tmp_path)
    typed = " ".join(command for commands in JOBS.values() for command in commands).split()
    files = {path.name for path in work.iterdir()}
    made = {"many-labelled.csv", "sorted.csv"}
    assert {word for word in typed if word.endswith((".csv", ".xlsx", ".py"))} - made <= files
    said = []
    mails = open_table(str(work / "mails.csv"), say=said.append, wanted=["nachricht", "thema"])
    assert "cp1252, delimiter ';'" in said[0]
    assert mails.n == 24
    assert any("€" in text or "ü" in text for own in MAILS.values() for text in own)
    sheet = open_table(str(work / "export.xlsx"), say=said.append, wanted=["text", "label"])
    assert sheet.n == 3 * 16 + 2
    with (work / "tags.csv").open() as stream:
        assert any(";" in row["labels"] for row in csv.DictReader(stream))
    assert (work / "many.csv").read_bytes().count(b"\n") == 20_001


def test_what_a_command_printed_is_kept_and_long_output_cut(tmp_path):
    took, printed = run("seq 100; exit 3", tmp_path, "/usr/bin:/bin", tmp_path / "store")
    assert 0 < took < 60
    assert printed.endswith("99\n100\n(exit code 3)\n")
    shown = report("A job", [("seq", took, printed)])
    assert "$ seq\n1\n2\n" in shown
    assert "more lines" in shown
    assert "\n50\n" not in shown

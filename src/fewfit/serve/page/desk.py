"""What the page works on: the tasks that it keeps, their fits, and what there is to take along."""

from __future__ import annotations

import csv
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from fewfit.serve.page import fitting, uploads
from fewfit.serve.page.jobs import Job, Jobs
from fewfit.serve.page.records import Kept, Records, check_name
from fewfit.serve.tasks import Tasks

LISTED = 50
"""Rows that are shown at once."""


class Desk:
    """What the page works on: the tasks that it keeps, and their fits.

    Parameters
    ----------
    tasks : Tasks
        What is fitted is added to it.
    workspace : path
        Where texts and labels are kept (``page.sqlite3``), and artifacts beside them; the first of
        the folders of `tasks`.
    models : sequence of str
        The frozen models that a new task may have.
    store : "default", path or None
        Where answers are kept.
    """

    def __init__(
        self, tasks: Tasks, workspace: Path, models: Sequence[str], store: str | Path | None
    ) -> None:
        self.tasks, self.models, self.store = tasks, models, store
        self.workspace = workspace
        self.records = Records(workspace)
        self.jobs = Jobs(self._fit)

    def folder(self, name: str) -> Path:
        """Return where the artifact of a task is."""
        return self.workspace / name

    def get(self, name: str) -> Kept:
        """Return a task (HTTPException 404)."""
        try:
            return self.records.get(name)
        except KeyError:
            raise HTTPException(404, f"The page has no task {name!r:.80}") from None

    def create(
        self, name: str, data: bytes, file: str, text: list[str], label: str | None, model: str
    ) -> dict[str, Any]:
        """Keep a new task of a file."""
        if model not in self.models:
            raise HTTPException(422, f"model: {model!r:.80} is not one of {list(self.models)}")
        self._check_free(name)
        columns, rows, without = uploads.read_rows(data, file, text, label)
        self._check_free(name)  # a program may have fitted it while the file was read
        task = self.records.create(
            name,
            rows,
            model=model,
            columns=columns,
            text_columns=text,
            label_column=label or _free("label", columns),
        )
        return {**self.state(task.name), "without_text": without}

    def _check_free(self, name: str) -> None:
        check_name(name)
        if name in self.tasks.names():
            raise HTTPException(422, f"name: {name!r:.80} is served already; take another")
        if self.folder(name).exists():
            raise HTTPException(422, f"name: there is a folder {name!r:.80} already; take another")

    def delete(self, name: str) -> None:
        """Delete a task and its artifact for good."""

        def work() -> None:
            self.records.delete(name)
            shutil.rmtree(self.folder(name), ignore_errors=True)
            self.tasks.reload()

        self.jobs.end(name, work)

    def changed(self, task: Kept) -> dict[str, Any]:
        """Fit again what was fitted before, and return the state."""
        job = self.jobs.get(task.name)
        if task.fitted != task.revision and (task.fitted is not None or (job and job.active)):
            self.jobs.start(task.name)
        return self.state(task.name)

    def summary(self, name: str) -> dict[str, Any]:
        """Return a line about a task."""
        task = self.get(name)
        return self._summary(task, self.records.counts(task))

    def _summary(self, task: Kept, counts: dict[str | None, int]) -> dict[str, Any]:
        expected = (task.result or {}).get("expected") or {}
        return {
            "name": task.name,
            "mine": True,
            "classes": len(task.words),
            "labelled": sum(n for label, n in counts.items() if label is not None),
            "rows": sum(counts.values()),
            "accuracy": expected.get("accuracy"),
            "low": expected.get("low"),
            "high": expected.get("high"),
        }

    def state(self, name: str) -> dict[str, Any]:
        """Return everything that the page shows of a task, but its rows."""
        job = self.jobs.get(name)
        # Before the task, so that what a job that has ended has found is there.
        work = None if job is None else job.to_dict()
        if work is not None:
            work["error"] = self.tasks.told(work["error"])
        task = self.get(name)
        counts = self.records.counts(task)
        return {
            **self._summary(task, counts),
            "model": task.model,
            "fields": ["text"],
            "words": task.words,
            "counts": {label: n for label, n in counts.items() if label is not None},
            "blank": counts[None],
            "pool": fitting.POOL,
            "text_columns": task.text_columns,
            "label_column": task.label_column,
            "revision": task.revision,
            "fitted": task.fitted is not None,
            "stale": task.fitted != task.revision,
            "job": work,
            "result": self._current(task),
            "python": _python(task.name),
        }

    def csv(self, task: Kept) -> str:
        """Return the file that the task was made of, with the labels as they are now."""
        stream = io.StringIO()
        write = csv.writer(stream, lineterminator="\r\n")
        known = task.label_column in task.columns
        place = task.columns.index(task.label_column) if known else len(task.columns)
        write.writerow([*task.columns[:place], task.label_column, *task.columns[place + 1 :]])
        for cells, label in self.records.table(task):
            write.writerow([*cells[:place], label or "", *cells[place + 1 :]])
        return "\ufeff" + stream.getvalue()  # the mark by which spreadsheets know UTF-8

    def zip(self, task: Kept) -> bytes:
        """Return the artifact of a task in one file (HTTPException 409)."""
        folder = self.folder(task.name)
        if not folder.is_dir():
            raise HTTPException(409, f"{task.name!r:.80} is not fitted yet")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, f"{task.name}/{file.name}")
        return packed.getvalue()

    def _current(self, task: Kept) -> dict[str, Any] | None:
        """Return the result of the last fit, less what was labelled or looked at since."""
        if task.result is None:
            return None
        told = {item["place"]: item["told"] for item in task.result["doubts"]}
        reason = {item["place"]: item["reason"] for item in task.result["suggestions"]}
        _, rows = self.records.rows(task, places=[*told, *reason], limit=len(told) + len(reason))
        by_place = {row["place"]: row for row in rows}
        doubts = [
            {**row, "told": told[row["place"]]}
            for row in map(by_place.get, told)
            if row and row["label"] not in (None, told[row["place"]]) and not row["sure"]
        ]
        suggestions = [
            {**row, "reason": reason[row["place"]]}
            for row in map(by_place.get, reason)
            if row and row["label"] is None
        ]
        return {
            **task.result,
            "n_doubts": len(doubts),
            "doubts": doubts[:LISTED],
            "suggestions": suggestions,
        }

    def _fit(self, name: str, job: Job) -> None:
        task = self.records.get(name)
        job.check()
        folder = self.tasks.place(name)
        examples = self.records.labelled(task)
        pool = self.records.pool(task, fitting.POOL)
        job.total = len({text for _, text, _ in examples} | {text for _, text in pool}) + 1
        result = fitting.fit(
            task,
            examples,
            pool,
            folder,
            model=self.tasks.open_model(task.model),
            store=self.store,
            progress=job.progress,
        )
        self.tasks.add(name, folder)
        self.records.set_result(task, result)


def _free(name: str, columns: Sequence[str]) -> str:
    """Return a name that no column has."""
    while name in columns:
        name += "_"
    return name


def _python(name: str) -> str:
    return (
        "from fewfit import FewShotClassifier\n"
        f"clf = FewShotClassifier.load({json.dumps(name)})\n"
        'print(clf.predict(["Your text"]))\n'
    )

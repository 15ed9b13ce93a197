"""The rows of a comparison: a pool to draw samples from, and a test set."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fewfit.compare.splits import (
    SHOTS,
    Sample,
    check_classes,
    check_left,
    draw_samples,
    overlap,
    same_samples,
    usual_shots,
)
from fewfit.errors import InputError, InputWarning
from fewfit.prompts import Row, Verbalizer, read_labels, read_rows
from fewfit.prompts.labels import class_array
from fewfit.prompts.verbalizer import warn_of_numbers


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled rows, checked, and the samples that were drawn of them.

    Attributes
    ----------
    train, test : list of Row
        Without the training rows that were left out, of which there are `n_dropped`.
    kept : list of int
        Where the training rows stood before.
    y_train, y_test : ndarray of shape (N,)
    verbalizer : Verbalizer
    samples : list of Sample
        By number of shots, then by seed.
    """

    train: list[Row]
    y_train: NDArray[Any]
    test: list[Row]
    y_test: NDArray[Any]
    verbalizer: Verbalizer
    samples: list[Sample]
    kept: list[int]
    n_dropped: int

    @classmethod
    def read(
        cls,
        train: tuple[Any, Any],
        test: tuple[Any, Any],
        *,
        fields: Sequence[str],
        text: Sequence[str],
        labels: Mapping[Any, Any] | None,
        shots: Sequence[int] | None,
        seeds: Sequence[int],
        drop_overlap: bool,
    ) -> Data:
        """Read and check the rows, and draw the samples.

        Parameters
        ----------
        train, test : (X, y)
        fields : sequence of str
            What is read of a row.
        text : sequence of str
            The fields by which rows are the same.
        labels, shots, seeds, drop_overlap : as for :func:`compare`
        """
        train_rows, test_rows = read_rows(train[0], fields), read_rows(test[0], fields)
        if not train_rows or not test_rows:
            raise InputError("the training pool and the test set need at least one row each")
        given = read_labels(train[1], len(train_rows), name="y of the training pool")
        y_train = class_array(given)
        y_test = class_array(read_labels(test[1], len(test_rows), name="y of the test set"))
        verbalizer = Verbalizer.for_examples(labels, given)
        if labels is None:
            warn_of_numbers(verbalizer.classes)
        check_classes(verbalizer.classes, y_train, y_test)
        texts = [
            [{name: row[name] for name in text} for row in rows] for rows in (train_rows, test_rows)
        ]
        kept = overlap(*texts, drop=drop_overlap)
        y = y_train[kept]
        check_left(verbalizer.classes, y)
        if shots is None:
            shots = usual_shots(y)
            if shots[-1] < SHOTS[-1]:
                warnings.warn(
                    f"shots: the smallest class has {shots[-1]}, not {SHOTS[-1]}, so that samples "
                    f"of {', '.join(map(str, shots))} per class are drawn",
                    InputWarning,
                    stacklevel=4,
                )
        samples = draw_samples(y, shots=shots, seeds=seeds)
        used_up = [n for n in same_samples(samples) if n * len(verbalizer.classes) == len(y)]
        if used_up:
            warnings.warn(
                f"shots: the pool holds no more than {used_up[0]} of each class, so that all "
                f"{len(seeds)} samples are the same rows and say nothing about other samples; give "
                "more rows or fewer shots",
                InputWarning,
                stacklevel=4,
            )
        return cls(
            [train_rows[i] for i in kept],
            y,
            test_rows,
            y_test,
            verbalizer,
            samples,
            kept.tolist(),
            len(y_train) - len(kept),
        )

    @property
    def classes(self) -> NDArray[Any]:
        """The classes, sorted, shape (K,)."""
        return class_array(self.verbalizer.classes)

    def only(self, fields: Sequence[str]) -> Data:
        """Return the same rows and samples with these fields alone."""
        narrow = [
            [{name: row[name] for name in fields} for row in r] for r in (self.train, self.test)
        ]
        return replace(self, train=narrow[0], test=narrow[1])

    def drawn(self, sample: Sample) -> list[Row]:
        """Return the rows of a sample."""
        return [self.train[i] for i in sample.rows]

    def rest(self, sample: Sample) -> list[Row]:
        """Return the rows of the pool that are not in a sample: texts without labels."""
        drawn = {int(i) for i in sample.rows}
        return [row for i, row in enumerate(self.train) if i not in drawn]


def text_of(row: Row) -> str:
    """Return the user's text of a row, its fields joined by a space."""
    return " ".join(row.values()).strip()


def digest(value: Any) -> str:
    """Hash what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()

"""Any artifact of a classifier, read by its folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fewfit.artifacts import schema
from fewfit.estimators.base import TextEstimator
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.multi_label import MultiLabelClassifier


def load(folder: str | Path, **options: Any) -> TextEstimator:
    """Read a fitted classifier, whichever kind the folder holds.

    Parameters
    ----------
    folder : path
        Written by ``save``, ``fewfit fit`` or ``fewfit tune``.
    **options
        As :meth:`FewShotClassifier.load` takes them: `model`, `hidden`, `store`, `max_queries`,
        `errors`, `verify`.

    Returns
    -------
    FewShotClassifier or MultiLabelClassifier
        What ``fewfit tune`` wrote is a FewShotClassifier on the tuned model.

    Raises
    ------
    ArtifactError
        If there is no artifact, or it is damaged or foreign.
    ModelMismatchError
        If the model is another than the one it was fitted on.
    """
    kind: type[TextEstimator] = FewShotClassifier
    if (Path(folder) / schema.MANIFEST).exists():
        manifest, _ = schema.read(folder)
        if manifest.decoder.name == "multi-label":
            kind = MultiLabelClassifier
    return kind.load(folder, **options)

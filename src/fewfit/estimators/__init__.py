"""Text in, labels out: scikit-learn estimators on a frozen model's answers."""

from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.multi_label import MultiLabelClassifier

__all__ = ["FewShotClassifier", "MultiLabelClassifier"]

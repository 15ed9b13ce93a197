"""What a model does, looked at: functions of models, without training."""

from __future__ import annotations

from typing import Any

from fewfit.analysis.token_shift import token_shift

ANALYSES: dict[str, Any] = {"token-shift": token_shift}
"""Name -> analysis."""

__all__ = ["ANALYSES", "token_shift"]

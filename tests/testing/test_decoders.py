"""The checks find what is broken: each of these decoders breaks one promise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from fewfit.decoders import Decoder
from fewfit.testing import check_decoder


class Sound(Decoder):
    """Mean of each class, negative squared distance."""

    requires: ClassVar = frozenset({"hidden"})
    fitted_arrays: ClassVar = {"mean_": ("K", "H")}

    def _fit(self, X, y, scores):
        self.mean_ = np.stack([X[y == k].mean(axis=0) for k in range(len(self.classes_))])

    def _log_odds(self, X, scores):
        return -((X[:, None] - self.mean_) ** 2).sum(axis=2)


class LooksAround(Sound):
    def _log_odds(self, X, scores):
        return super()._log_odds(X - X.mean(axis=0), scores)


class FirstRowsOnly(Sound):
    def _fit(self, X, y, scores):
        self.mean_ = np.stack([X[y == k][0] for k in range(len(self.classes_))])


class ForgetsOnSaving(Sound):
    def _fit(self, X, y, scores):
        super()._fit(X, y, scores)
        self.scale = 2.0

    def _log_odds(self, X, scores):
        return self.scale * super()._log_odds(X, scores)


class BelievesTheOrigin(Sound):
    requires: ClassVar = frozenset({"hidden", "scores"})

    def _log_odds(self, X, scores):
        return super()._log_odds(X, scores) * (1 if scores is None else np.abs(scores))


def test_a_sound_decoder_passes():
    check_decoder(Sound())


@pytest.mark.parametrize("kind", [LooksAround, FirstRowsOnly, ForgetsOnSaving, BelievesTheOrigin])
def test_a_broken_one_does_not(kind):
    with pytest.raises((AssertionError, AttributeError)):
        check_decoder(kind())

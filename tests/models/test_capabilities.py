"""What a model declares is checked by name."""

from __future__ import annotations

import pytest

from fewfit.errors import CapabilityError
from fewfit.models import Capabilities
from fewfit.observations import ScoreSpace


def test_capabilities_are_checked_by_name():
    given = Capabilities(scores=None, hidden=True, max_labels=2)
    given.check(frozenset({"hidden"}), who="X", n_words=9)
    with pytest.raises(CapabilityError, match="X needs 'scores'"):
        given.check(frozenset({"scores"}), who="X", n_words=2)
    with pytest.raises(CapabilityError, match="9 label words"):
        Capabilities(scores=ScoreSpace.LOGPROB, hidden=False, max_labels=2).check(
            frozenset(), who="X", n_words=9
        )

"""Arithmetic of small arrays on one thread."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController


def one_thread() -> AbstractContextManager[object]:
    """Keep the linear algebra on one thread for a while.

    A product of small matrices takes microseconds; waking a second thread for it takes longer, and
    the fit as a whole several times longer.
    """
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    np.linalg.eigvalsh(np.eye(2))  # numpy's own library is loaded
    return ThreadpoolController()

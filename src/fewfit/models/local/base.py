"""What the models of this process share: a checkpoint, a dtype, a device, weights loaded once."""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from fewfit.errors import InputError
from fewfit.models.base import FrozenModel
from fewfit.models.costs import Size
from fewfit.models.local.batching import Budget
from fewfit.models.local.files import Checkpoint
from fewfit.models.local.loading import (
    DTYPES,
    check_extra,
    default_device,
    default_dtype,
    import_torch,
)
from fewfit.models.paired import JOINT

Made = TypeVar("Made")


class LazyModel(FrozenModel):
    """A model that loads what it needs when it is first asked, once, whichever thread asks.

    A pickle holds nothing that was loaded: it is loaded again where it is read.
    """

    _unsaved: ClassVar[tuple[str, ...]] = ("_made", "_making", "spec")

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._making = threading.RLock()

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        """Return what `make` made when it was first asked for `name`."""
        if name not in self._made:
            with self._making:
                if name not in self._made:
                    self._made[name] = make()
        return self._made[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # pyright: ignore[reportAttributeAccessIssue]

    def __getstate__(self) -> dict[str, Any]:
        """What the model was made from; nothing that was read."""
        return {name: value for name, value in vars(self).items() if name not in self._unsaved}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._made, self._making = {}, threading.RLock()


class LocalModel(LazyModel):
    """Base of the models whose weights are read from a checkpoint.

    Weights and tokenizer are loaded when the model is first asked, once, whichever thread asks. A
    pickle holds none of them: they are loaded again where it is read.

    Parameters
    ----------
    checkpoint : Checkpoint
    dtype : {"float32", "bfloat16", "float16", "auto"}, optional
    max_tokens : int, optional
    device : str, optional

    Raises
    ------
    InputError
        For a dtype or a limit that means nothing.
    """

    _extra: ClassVar = "hf"
    _unsaved: ClassVar = (*LazyModel._unsaved, "device", "dtype", "max_tokens")

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: str | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if dtype not in (None, "auto", *DTYPES):
            raise InputError(f"model: dtype is one of {(*DTYPES, 'auto')}, not {dtype!r}")
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"model: max_tokens is at least 1, not {max_tokens}")
        if JOINT in checkpoint.name:
            raise InputError(
                f"model: {checkpoint.name!r:.200} has {JOINT!r} in its name, which stands between "
                "two models; rename the folder, or name a link to it"
            )
        self.checkpoint = checkpoint
        self._dtype, self._max_tokens, self._device = dtype, max_tokens, device

    @property
    def size(self) -> Size | None:
        """What decides its FLOPs, from the weights' files; None before those of a hub are here."""
        n = self.checkpoint.n_parameters
        return None if n is None else Size(n, self.checkpoint.kind == "seq2seq")

    @cached_property
    def dtype(self) -> str:
        """Name of the weights' dtype."""
        if self._dtype in DTYPES:
            return self._dtype
        import_torch("a local model", "hf")
        return default_dtype(self.device, fast=self._dtype == "auto")

    @cached_property
    def device(self) -> str:
        """Where the model runs."""
        import_torch("a local model", "hf")
        return self._device if self._device is not None else default_device()

    @cached_property
    def max_tokens(self) -> int:
        """How many tokens of a prompt are read."""
        declared = self.checkpoint.max_tokens
        limit = self._max_tokens if self._max_tokens is not None else declared
        if limit is None:
            raise InputError(
                f"model: {self.checkpoint.name} does not declare how many tokens it reads; give "
                "max_tokens"
            )
        if declared is not None and limit > declared:
            raise InputError(f"model: max_tokens is {limit}, but it reads at most {declared}")
        return limit

    @property
    def _budget(self) -> Budget:
        large = {} if self.device == "cpu" else {"tokens": 16_384, "rows": 512}
        return self._once("budget", lambda: Budget(**large))

    def check_installed(self) -> None:
        check_extra("this model", self._extra)

    def __getstate__(self) -> dict[str, Any]:
        """What the model was made from, and the dtype that this came to; nothing that was read."""
        return {**super().__getstate__(), "_dtype": vars(self).get("dtype", self._dtype)}

"""Methods around an adapter that another method builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from fewfit.errors import InputError
from fewfit.tuning import make_method
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class WithAdapter(TuningMethod):
    """Base of methods that train another's adapter in their own way.

    Parameters
    ----------
    adapter : str, default="ia3"
        The tuning method that builds the adapter.
    adapter_options : mapping, default={}
        Its options; in a command ``adapter.NAME=VALUE``.
    """

    replaces_loss: ClassVar[bool] = False  # whether the other's would not be used

    adapter: str = "ia3"
    adapter_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.inner).fit is not TuningMethod.fit:
            raise InputError(
                f"adapter: {self.adapter} has trainings of its own; name one that builds an adapter"
            )
        if self.replaces_loss and type(self.inner).loss is not TuningMethod.loss:
            raise InputError(
                f"adapter: {self.adapter} has a loss of its own, which would not be used; name "
                "the adapter alone, as ia3"
            )

    @property
    def inner(self) -> TuningMethod:
        """The method that builds the adapters."""
        return make_method(self.adapter, self.adapter_options)

    def build(self, base: Trunk, seed: int) -> Adapter:
        return self.inner.build(base, seed)

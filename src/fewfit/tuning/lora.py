"""LoRA through peft, at the sites of this wing's map."""

from __future__ import annotations

from typing import Any

from torch import nn

from fewfit.errors import InputError, MissingExtraError
from fewfit.tuning.sites import SiteMap


def add_lora(
    network: nn.Module,
    sites: SiteMap,
    *,
    roles: tuple[str, ...] = ("q", "k", "v", "o", "ffn.in", "ffn.out"),
    rank: int = 4,
    alpha: int = 1,
) -> dict[str, nn.Parameter]:
    """Put low-rank modules of peft into `network`, beside the layers that play `roles`.

    They start as zero. Remove them with ``peft`` itself; save with
    ``peft.get_peft_model_state_dict``.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Changed in place.
    sites : SiteMap
    roles : tuple of str
        Keys of :attr:`SiteMap.layers`. The default is the baseline of T-Few's paper, without its
        training of layer norms.
    rank : int, default=4
    alpha : int, default=1
        The change is scaled by alpha / rank.

    Returns
    -------
    dict of str to Parameter
        What is to be trained, float32.

    Raises
    ------
    InputError
        For a role that the network does not have.
    MissingExtraError
        If peft is not installed.
    """
    unknown = [role for role in roles if not sites.layers.get(role)]
    if unknown:
        raise InputError(f"lora: no layer plays {unknown[0]!r}; there are {sorted(sites.layers)}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError('LoRA needs peft: pip install "fewfit[tune]"') from error
    targets = sorted({path for role in roles for path in sites.layers[role]})
    transposed = type(network.get_submodule(targets[0])).__name__ == "Conv1D"
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        fan_in_fan_out=transposed,
    )
    inject_adapter_in_model(config, network)
    found: dict[str, Any] = {n: p for n, p in network.named_parameters() if p.requires_grad}
    for parameter in found.values():
        parameter.data = parameter.data.float()  # peft gives them the dtype of their layer
    return found

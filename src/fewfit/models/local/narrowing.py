"""The one hook around a language model: its head sees only the positions that are read."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from typing import Any

from fewfit.errors import ModelError


@dataclass
class _Reading:
    """What one call reads of one module's last hidden states, and these states."""

    body: Any
    rows: Any
    positions: Any
    states: Any = None


# Of the call, not of the network: threads may share a network, and a network can be copied.
_reading: ContextVar[_Reading | None] = ContextVar("reading", default=None)


class Narrowed:
    """A language model of transformers that is run for some positions only.

    The states at these positions are taken out of the last hidden layer before the model's own
    head (dense layer, scaling, soft cap and all) sees it.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Masked, causal or encoder-decoder, of any architecture; it gets a forward hook that does
        nothing in other calls.

    Attributes
    ----------
    body : torch.nn.Module
        The module whose last hidden layer the head reads.

    Raises
    ------
    ModelError
        If no module of the network shows its last hidden layer.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.body = find_body(network)
        self.body.register_forward_hook(_narrow)

    def __call__(self, inputs: dict[str, Any], rows: Any, positions: Any) -> tuple[Any, Any]:
        """Run the network once.

        Parameters
        ----------
        inputs : dict of str to Tensor
            Arguments of the network.
        rows, positions : Tensor of shape (N,), int64
            What is read: rows of the batch (of the decoder, where there is one), and positions in
            them.

        Returns
        -------
        (output, Tensor of shape (N, H))
            What the network returns, with logits of shape (1, N, V), and the last hidden states.
        """
        reading = _Reading(self.body, rows, positions)
        token = _reading.set(reading)
        try:
            return self.network(**inputs), reading.states
        finally:
            _reading.reset(token)


def find_body(network: Any) -> Any:
    """Return the module whose last hidden layer the head of a language model reads.

    It is the last one to return such a layer in a forward pass, whatever its name.
    """
    import torch

    found: list[Any] = []

    def note(module: Any, args: Any, output: Any) -> None:
        if module is not network and getattr(output, "last_hidden_state", None) is not None:
            found.append(module)

    handles = [module.register_forward_hook(note) for module in network.modules()]
    try:
        ids = torch.zeros((1, 3), dtype=torch.long, device=network.device)
        inputs: dict[str, Any] = {"input_ids": ids}
        if network.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = ids[:, :1]
        with torch.inference_mode():
            network(**inputs, **no_cache(network))
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"model: the architecture {type(network).__name__} is not supported: it does not read "
            f"a plain text ({error})"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ModelError(
            f"model: the architecture {type(network).__name__} is not supported: it does not show "
            "its last hidden layer"
        )
    return found[-1]


def no_cache(network: Any) -> dict[str, bool]:
    """Return the argument that keeps a network from making a cache for the next token, if any."""
    takes = "use_cache" in signature(network.forward).parameters
    return {"use_cache": False} if takes else {}


def _narrow(module: Any, args: Any, output: Any) -> Any:
    """Keep only the hidden states that are read, as one row of a batch."""
    reading = _reading.get()
    if reading is None or reading.body is not module or reading.states is not None:
        return output  # not this call, or narrowed by now: several may read one network
    reading.states = output.last_hidden_state[reading.rows, reading.positions]
    output.last_hidden_state = reading.states.unsqueeze(0)
    return output

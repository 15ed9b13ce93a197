"""What tuning and asking cost: FLOPs and bytes from counts (Liu et al. 2022, section 4.2).

A decoder-only model of N parameters spends 2 N per token forward and 6 N per token of training. In
an encoder-decoder each token passes half of the parameters: N and 3 N.
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """What decides the FLOPs of a model whose weights are at hand.

    Attributes
    ----------
    n_parameters : int
        All of them, embeddings included.
    encoder_decoder : bool
        Whether a token passes half of them only.
    task_flops : float
        What the training of the part that is one task's own took; 0 where there is no such part.
    task_bytes : int
        What that part takes on disk.
    """

    n_parameters: int
    encoder_decoder: bool
    task_flops: float = 0.0
    task_bytes: int = 0


def inference_flops(n_parameters: float, tokens: float, *, encoder_decoder: bool) -> float:
    """FLOPs of one query; `tokens` counts the input and all choices."""
    return n_parameters * tokens * (1 if encoder_decoder else 2)


def training_flops(
    n_parameters: float, tokens: float, *, steps: int, batch_size: int, encoder_decoder: bool
) -> float:
    """FLOPs of a training; `tokens` counts one example's input and all its choices."""
    return 3 * inference_flops(
        n_parameters, tokens * steps * batch_size, encoder_decoder=encoder_decoder
    )


def in_context_flops(
    n_parameters: float, tokens: float, *, shots: float, shot_tokens: float, encoder_decoder: bool
) -> float:
    """FLOPs of one query with `shots` examples of `shot_tokens` tokens each in its context."""
    return inference_flops(
        n_parameters, shots * shot_tokens + tokens, encoder_decoder=encoder_decoder
    )


def vector_bytes(n_values: int) -> int:
    """Bytes of float32 values, without the file's header."""
    return 4 * n_values


def in_context_bytes(shots: float, shot_tokens: float) -> float:
    """Bytes of the token ids (int32) of a context."""
    return 4 * shots * shot_tokens


def ia3_count(
    *, inner: int, ffn: int, encoder_blocks: int = 0, decoder_blocks: int = 0, cross: bool = True
) -> int:
    """Values of (IA)^3: 2 inner + ffn for each block, 2 inner more for each cross-attention.

    Parameters
    ----------
    inner : int
        Width of keys and values, heads x size of a head.
    ffn : int
        Width of the feed-forward's hidden activation.
    cross : bool
        Whether the decoder has cross-attention.
    """
    block = 2 * inner + ffn
    return encoder_blocks * block + decoder_blocks * (block + 2 * inner * cross)

"""Frozen models behind HTTP: one file per dialect, one small transport for all."""

from __future__ import annotations

from fewfit.models.remote.anthropic import AnthropicMessages
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.decisions import Decisions
from fewfit.models.remote.embeddings import OpenAIEmbeddings, TextEmbeddingsInference
from fewfit.models.remote.llamacpp import LlamaCpp
from fewfit.models.remote.ollama import Ollama
from fewfit.models.remote.openai import OpenAIChat, OpenAICompletions
from fewfit.models.remote.sglang import SGLang
from fewfit.models.remote.systemone import SystemOne
from fewfit.models.remote.vllm import VLLM

DIALECTS: dict[str, type[RemoteModel]] = {
    kind.scheme: kind
    for kind in (
        OpenAICompletions,
        OpenAIChat,
        AnthropicMessages,
        SystemOne,
        Decisions,
        VLLM,
        SGLang,
        LlamaCpp,
        Ollama,
        OpenAIEmbeddings,
        TextEmbeddingsInference,
    )
}

__all__ = ["DIALECTS", "RemoteModel"]

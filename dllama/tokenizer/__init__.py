"""Tokenizers: text to ids and back, from GGUF metadata and from `.t` files."""

from dllama.tokenizer.stream_decoder import StreamDecoder
from dllama.tokenizer.tokenizer import Tokenizer

__all__ = ["StreamDecoder", "Tokenizer"]

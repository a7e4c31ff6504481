"""One machine, one model: file formats, tokenizer, chat template, model, engine."""

__version__ = "0.1.0"

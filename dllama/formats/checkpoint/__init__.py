"""Checkpoints as Hugging Face has them: a folder with config.json, safetensors files and the files
of a tokenizer, read as what a GGUF file of the same model would say."""

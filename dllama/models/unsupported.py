"""Kinds of models that people take for language models of ours, and what they are: known by the
name that a file says."""

from __future__ import annotations

_VECTORS = "an encoder, which makes vectors of texts and writes none"
_SEQUENCES = "a model of an encoder and a decoder, of which neither is computed"
_PICTURES = "a model that sees pictures and writes no text"
_DIFFUSION = "a diffusion model, which makes pictures or films"
_STATES = "a model with states of a kind that is not computed"

_NAMES: dict[str, str] = {
    _VECTORS: "bert roberta xlm-roberta camembert distilbert albert electra mpnet deberta "
    "deberta-v2 modernbert modern-bert nomic_bert nomic-bert nomic-bert-moe jina-bert-v2 "
    "jina-bert-v3 neo-bert eurobert t5encoder gemma-embedding",
    _SEQUENCES: "t5 mt5 umt5 bart mbart pegasus marian m2m_100 whisper",
    _PICTURES: "clip_text_model clip_vision_model siglip siglip_text_model siglip_vision_model vit "
    "dinov2 dinov3_vit",
    _DIFFUSION: "flux sd1 sdxl sd3 aura hidream ltxv hyvid wan lumina2 cosmos qwen_image",
    _STATES: "mamba mamba2 falcon_mamba jamba bamba zamba2 rwkv rwkv6 rwkv7 falcon-h1 falcon_h1 "
    "nemotron_h plamo2 lfm2 granitehybrid",
}
_SPARSE = (
    "{}, whose attention reads only the tokens that an indexer chooses (sparse attention), which "
    "is not computed"
)
KINDS: dict[str, str] = {name: kind for kind, names in _NAMES.items() for name in names.split()} | {
    "clip": f"{_PICTURES}; where it is part of another model (mmproj), name the file of its text",
    **dict.fromkeys(("deepseek_v32", "deepseek32"), _SPARSE.format("DeepSeek-V3.2")),
    **dict.fromkeys(("glm_moe_dsa", "glm-dsa"), _SPARSE.format("GLM-5")),
    "chatglm": "ChatGLM, or GLM-4-9B in its makers' own layout; its folder whose name ends in -hf "
    "and GGUF files of it are computed",
    "kimi_k25": "Kimi-K2.5, which sees pictures, and of which the text is not computed either",
}
"""What a model is, by its `general.architecture` or `model_type`."""
REFUSED_WHOLE = frozenset({"kimi_k25", "clip", "siglip"})
"""Types of models with a part on text, which is not read by itself."""

GENERAL_TYPES: dict[str, str] = {
    "adapter": "a LoRA adapter, and not a model; merge it into its model",
    "mmproj": KINDS["clip"],
    "imatrix": "an importance matrix, and not a model",
    "vocab": "a vocabulary without weights",
}
"""What a GGUF file is, by its `general.type`."""

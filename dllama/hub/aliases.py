"""Short names of well-known models, as ollama's users and distributed-llama's know them, and where
each is on the hub. Adding one is adding a row."""

from __future__ import annotations

_QWEN3 = {"0.6b": "0.6B", "1.7b": "1.7B", "4b": "4B", "8b": "8B", "14b": "14B", "32b": "32B"}
_QWEN25 = {"0.5b": "0.5B", "1.5b": "1.5B", "3b": "3B", "7b": "7B", "14b": "14B", "32b": "32B"}
_DISTRIBUTED_LLAMA = {
    "llama3_1_8b_instruct_q40": "Llama-3_1-8B-Q40-Instruct-Distributed-Llama",
    "llama3_2_1b_instruct_q40": "Llama-3_2-1B-Q40-Instruct-Distributed-Llama",
    "llama3_2_3b_instruct_q40": "Llama-3_2-3B-Q40-Instruct-Distributed-Llama",
    "deepseek_r1_distill_llama_8b_q40": "DeepSeek-R1-Distill-Llama-8B-Distributed-Llama",
    "qwen3_0.6b_q40": "Qwen3-0.6B-Q40-Distributed-Llama",
    "qwen3_1.7b_q40": "Qwen3-1.7B-Q40-Distributed-Llama",
    "qwen3_8b_q40": "Qwen3-8B-Q40-Distributed-Llama",
}
# Those that distributed-llama has in parts, which are one file once they are joined: the same
# weights in its type, as GGUF.
_IN_PARTS = {
    "qwen3_14b_q40": "hf.co/unsloth/Qwen3-14B-GGUF:Q4_0",
    "qwen3_30b_a3b_q40": "hf.co/unsloth/Qwen3-30B-A3B-GGUF:Q4_0",
    "llama3_3_70b_instruct_q40": "hf.co/bartowski/Llama-3.3-70B-Instruct-GGUF:Q4_0",
}

ALIASES: dict[str, str] = {
    **{f"qwen3:{ours}": f"hf.co/unsloth/Qwen3-{size}-GGUF" for ours, size in _QWEN3.items()},
    "qwen3": "hf.co/unsloth/Qwen3-8B-GGUF",
    "qwen3:30b": "hf.co/unsloth/Qwen3-30B-A3B-GGUF",
    "qwen3:30b-a3b": "hf.co/unsloth/Qwen3-30B-A3B-GGUF",
    **{f"qwen2.5:{ours}": f"hf.co/bartowski/Qwen2.5-{size}-Instruct-GGUF"
       for ours, size in _QWEN25.items()},
    "qwen2.5": "hf.co/bartowski/Qwen2.5-7B-Instruct-GGUF",
    "llama3.1": "hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "llama3.1:8b": "hf.co/bartowski/Meta-Llama-3.1-8B-Instruct-GGUF",
    "llama3.2": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF",
    "llama3.2:1b": "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF",
    "llama3.2:3b": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF",
    "llama3.3": "hf.co/bartowski/Llama-3.3-70B-Instruct-GGUF",
    "llama3.3:70b": "hf.co/bartowski/Llama-3.3-70B-Instruct-GGUF",
    "mistral": "hf.co/bartowski/Mistral-7B-Instruct-v0.3-GGUF",
    "mistral:7b": "hf.co/bartowski/Mistral-7B-Instruct-v0.3-GGUF",
    "deepseek-r1:8b": "hf.co/bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF",
    "exaone4:1.2b": "hf.co/LGAI-EXAONE/EXAONE-4.0-1.2B-GGUF",
    **{ours: f"hf.co/b4rtaz/{repo}" for ours, repo in _DISTRIBUTED_LLAMA.items()},
    **_IN_PARTS,
}  # fmt: skip
"""A short name, in lower case, and the name that it stands for."""

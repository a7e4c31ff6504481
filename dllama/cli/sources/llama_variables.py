"""llama-server's environment variables, LLAMA_ARG_*: each is a flag, of less weight than our own
variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dllama.cli.flags.parser import FlagParser
from dllama.cli.sources.level import OFF, ON, Entry, Level, level_of

PREFIX = "LLAMA_ARG_"

# Variables of flags with a value; the others are called as their flag is.
VALUES = {
    "MODEL": "--model", "ALIAS": "--alias", "TAGS": "--tags", "HOST": "--host", "PORT": "--port",
    "API_PREFIX": "--api-prefix", "API_KEY_FILE": "--api-key-file", "TIMEOUT": "--timeout",
    "SSL_KEY_FILE": "--ssl-key-file", "SSL_CERT_FILE": "--ssl-cert-file",
    "CORS_ORIGINS": "--cors-origins", "THREADS": "--threads", "CTX_SIZE": "--ctx-size",
    "N_PARALLEL": "--parallel", "BATCH": "--batch-size", "CACHE_TYPE_K": "--cache-type-k",
    "CACHE_TYPE_V": "--cache-type-v", "N_PREDICT": "--n-predict", "TEMPERATURE": "--temp",
    "TOP_K": "--top-k", "TOP_P": "--top-p", "MIN_P": "--min-p",
    "REPEAT_PENALTY": "--repeat-penalty", "PRESENCE_PENALTY": "--presence-penalty",
    "FREQUENCY_PENALTY": "--frequency-penalty", "POOLING": "--pooling",
    "CHAT_TEMPLATE": "--chat-template", "CHAT_TEMPLATE_FILE": "--chat-template-file",
    "CHAT_TEMPLATE_KWARGS": "--chat-template-kwargs", "THINK": "--reasoning-format",
    "REASONING": "--reasoning", "REASONING_EFFORT": "--reasoning-effort",
    "THINK_BUDGET": "--reasoning-budget", "SSE_PING_INTERVAL": "--sse-ping-interval",
    "KV_UNIFIED_PER_SLOT": "--kv-unified-per-slot", "SPEC_DRAFT_MODEL": "--draft-model",
    "SPEC_DRAFT_N_MAX": "--draft-max", "ROPE_SCALING_TYPE": "--rope-scaling",
    "ROPE_SCALE": "--rope-scale", "ROPE_FREQ_BASE": "--rope-freq-base",
    "ROPE_FREQ_SCALE": "--rope-freq-scale", "HF_REPO": "--hf-repo", "HF_FILE": "--hf-file",
    "MODEL_URL": "--model-url", "MMPROJ": "--mmproj", "RPC": "--rpc",
    "MODELS_DIR": "--models-dir", "MODELS_PRESET": "--models-preset",
    "MODELS_MAX": "--models-max",
}  # fmt: skip

# Variables of flags without one: the flag for on, and for off ("" if that is so anyway).
SWITCHES = {
    "CONTEXT_SHIFT": ("--context-shift", "--no-context-shift"),
    "KV_UNIFIED": ("--kv-unified", "--no-kv-unified"),
    "CACHE_PROMPT": ("--cache-prompt", "--no-cache-prompt"),
    "ENDPOINT_SLOTS": ("--slots", "--no-slots"),
    "ENDPOINT_PROPS": ("--props", ""),
    "PREFILL_ASSISTANT": ("--prefill-assistant", "--no-prefill-assistant"),
    "UI": ("--ui", "--no-ui"),
    "RERANKING": ("--reranking", ""),
    "MODELS_AUTOLOAD": ("--models-autoload", "--no-models-autoload"),
}  # fmt: skip


def environment_level(parser: FlagParser, environment: Mapping[str, str]) -> Level:
    """Returns what llama-server's variables set. A variable of a flag that changes nothing is not
    looked at. Raises ConfigError, with the variable's name, for a value that cannot be read."""
    return level_of(parser, _entries(parser, environment))


def _entries(parser: FlagParser, environment: Mapping[str, str]) -> Iterator[Entry]:
    for name, flag in VALUES.items():
        value = environment.get(PREFIX + name)
        if value:
            yield Entry(parser.action_of(flag), flag, value, f"${PREFIX}{name}")
    for name, (on, off) in SWITCHES.items():
        variable = PREFIX + name
        value = environment.get(variable, "").lower()
        if PREFIX + "NO_" + name in environment:
            variable, value = f"{PREFIX}NO_{name}", "0"
        for flag, words in ((on, ON), (off, OFF)):
            if flag and value in words:
                yield Entry(parser.action_of(flag), flag, "true", f"${variable}")

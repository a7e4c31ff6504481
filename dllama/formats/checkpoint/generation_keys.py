"""What a generation_config.json recommends, under the keys of GGUF's metadata."""

from __future__ import annotations

from pathlib import Path

from dllama.formats.checkpoint.folder import read_json

FILE = "generation_config.json"
SAMPLING: dict[str, str] = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}
"""Its keys, and GGUF's after `general.sampling.`."""


def generation_metadata(folder: Path) -> dict[str, object]:
    """Returns the sampling that the makers of a checkpoint recommend; nothing where they say none,
    or that answers are not to be sampled. Raises ModelFileError where the file is damaged."""
    if not (folder / FILE).exists():
        return {}
    said = read_json(folder / FILE)
    if not said.get("do_sample", False):
        return {}
    numbers = {
        f"general.sampling.{theirs}": said[ours]
        for ours, theirs in SAMPLING.items()
        if isinstance(said.get(ours), int | float)
    }
    return {key: value for key, value in numbers.items() if not isinstance(value, bool)}


def end_ids(folder: Path) -> list[int]:
    """Returns the tokens that end an answer, as generation_config.json has them, else
    config.json."""
    for name in (FILE, "config.json"):
        said = read_json(folder / name).get("eos_token_id") if (folder / name).exists() else None
        ids = said if isinstance(said, list) else [said]
        found = [i for i in ids if type(i) is int and i >= 0]
        if found:
            return found
    return []

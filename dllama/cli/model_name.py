"""The models of the command line: what is no file there may be the name of a model that was pulled,
or that is pulled now."""

from __future__ import annotations

import argparse
from pathlib import Path

from dllama.cli.terminal.output import is_terminal
from dllama.errors import ConfigError, ModelNameError, NotDownloaded

_FLAGS = ("model", "draft_model")
_ENDINGS = (".gguf", ".m", ".safetensors", ".json", ".t")
_PLACES = (".", "/", "~", "\\")


def name_models(args: argparse.Namespace) -> None:
    """Replaces the names of models in the flags by their paths; `model_name` is the name of the
    model then. Raises NotDownloaded where a model is not here and is not to be pulled, HubError
    where it cannot be."""
    for flag in _FLAGS:
        text = getattr(args, flag, None)
        if not isinstance(text, str) or not is_name(text):
            continue
        is_offline = getattr(args, "offline", False)
        pulls = not is_offline and (getattr(args, "pull", False) or is_terminal())
        path = path_of(text, pulls=pulls)
        if path is not None:
            setattr(args, flag, path)
            if flag == "model":
                args.model_name = text


def is_name(text: str) -> bool:
    """Returns whether a text can only be a name: a file of that name is a file, and what looks like
    a path is one."""
    if "://" in text or text.lower().startswith(("hf.co/", "huggingface.co/")):
        return not Path(text).exists()
    return not (text.startswith(_PLACES) or text.endswith(_ENDINGS) or Path(text).exists())


def path_of(text: str, *, pulls: bool) -> str | None:
    """Returns the path of the model of a name, which is downloaded if it is not here; None for what
    is no name. Raises as name_models."""
    from dllama.hub.found import find_here
    from dllama.hub.names import parse_name
    from dllama.hub.settings import hub_settings

    settings = hub_settings()
    try:
        name = parse_name(text, settings.endpoint)
    except ModelNameError:
        return None
    found = find_here(settings, name)
    if found is None and not pulls:
        raise NotDownloaded(
            f"{text} is no file here, and no model of this name is here either. Download it with "
            f"dllama pull {text}, or add --pull.",
            name=text,
        )
    if found is None:
        from dllama.cli.pulling import pull_one

        found = find_here(settings, parse_name(pull_one(settings, text), settings.endpoint))
    if found is None:
        raise ConfigError(f"{text} was downloaded, and somebody has removed it since.")
    return str(found.path)

"""Stands for llama-server in the test-suite of llama.cpp: its arguments in, dllama-root with the
same flags out.

Only what names a model is changed, since the suite names models that it downloads: the tiny one is
the local file, and a router finds it under several names in a cache. A server that needs another
model cannot be run offline; the reason is noted and the process ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MODEL_VARIABLE = "LLAMA_SUITE_MODEL"  # the local file of the tiny model
ROUTER_VARIABLE = "LLAMA_SUITE_ROUTER"  # set where a server without a model is a router of several
NOTES_VARIABLE = "LLAMA_SUITE_NOTES"  # where reasons are noted, a line each
CANNOT_RUN = 77  # the exit status, as of a skipped test in automake

# What names the tiny model: a repository of its own, or a file in a repository of several.
TINY = ("ggml-org/test-model-stories260K", "tinyllamas/stories260K.gguf")
NAMING = ("--hf-repo", "--hf-file", "--model-url", "--model")  # each takes a value
OTHER_MODELS = ("--model-draft", "--mmproj-url", "--lora")  # models that are not at hand
ROUTER = ("--models-dir", "--models-preset", "--models-max", "--no-models-autoload")
TOOLS = ("--tools", "--mcp-servers-json", "--mcp-servers-config")


class CannotRun(Exception):
    """Raised for a server that needs what is not on this machine."""


def translated(arguments: Sequence[str], model: str, *, is_router: bool) -> list[str]:
    """Returns the arguments for dllama-root. A server without a model gets the tiny one, unless a
    router of several is meant, which here may download. Raises CannotRun."""
    named: dict[str, str] = {}
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in NAMING:
            named[word] = next(words, "")
        elif word in OTHER_MODELS:
            raise CannotRun(f"needs the model of {word} {Path(next(words, '')).name}")
        else:
            others.append(word)
    if set(TOOLS) & set(others):
        raise CannotRun("is about tools of llama-server")
    if not named and not is_router:
        return ["--model", model, *others]
    if not named:
        starts = [] if set(ROUTER) & set(others) else ["--models-max", "4"]  # as by default
        return [*starts, *(word for word in others if word != "--offline")]
    wanted = " ".join(named.values())
    if not any(wanted.endswith(name) for name in TINY):
        raise CannotRun(f"needs the model {wanted}")
    return ["--model", model, *others]


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Becomes dllama-root, or notes why it cannot and exits."""
    try:
        is_router = bool(environment.get(ROUTER_VARIABLE))
        own = translated(arguments, environment[MODEL_VARIABLE], is_router=is_router)
    except CannotRun as reason:
        with Path(environment[NOTES_VARIABLE]).open("a") as notes:
            notes.write(f"{reason}\n")
        sys.exit(CANNOT_RUN)
    program = [sys.executable, "-m", "dllama.cli.commands.root", *own]
    os.execv(sys.executable, program)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)

"""dllama pull: downloads models by their names."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter

EXAMPLES = """examples:
  dllama pull qwen3:0.6b
  dllama pull hf.co/Qwen/Qwen3-4B-GGUF:Q8_0 bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M
  dllama pull https://example.com/model.gguf
  dllama run -m qwen3:0.6b "Hello"

What was interrupted is gone on with by the same command. HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and
the variables of proxies count; DLLAMA_MODELS is the folder of models."""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "pull", help=summary,
        description="Download models from the Hugging Face hub, or from any address. Every file is "
        "checked by the digest that the hub knows, and a model appears when all of it is right.",
        epilog=EXAMPLES, formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "names", metavar="NAME", nargs="+",
        help="hf.co/USER/REPO[:QUANT], USER/REPO:QUANT, a URL, or a short name like qwen3:0.6b",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns 0 where all models are here."""
    from dllama.cli.pulling import pull_models
    from dllama.hub.settings import hub_settings
    from dllama.hub.task import State

    tasks = pull_models(hub_settings(), args.names)
    return 0 if all(task is not None and task.state is State.SUCCESS for task in tasks) else 1

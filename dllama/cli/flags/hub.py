"""llama-server's flags of models that are downloaded: each is a name for --model, with --pull."""

from __future__ import annotations

import argparse

from dllama.errors import ConfigError


def add_hub_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; their help is that of --model."""
    for names, metavar in (
        (("-hf", "-hfr", "--hf-repo"), "REPO[:QUANT]"),
        (("-hff", "--hf-file"), "FILE"),
        (("-mu", "--model-url"), "URL"),
    ):
        parser.add_argument(*names, metavar=metavar, help=argparse.SUPPRESS)
    parser.add_argument("--offline", action="store_true", help=argparse.SUPPRESS)


def use_hub_flags(args: argparse.Namespace) -> None:
    """Has --model and --pull say what the flags do. Raises ConfigError where they do not fit each
    other."""
    if args.hf_file and not args.hf_repo:
        raise ConfigError("--hf-file names a file of a repository; name that too, with --hf-repo.")
    if args.hf_repo and args.model_url:
        raise ConfigError("--hf-repo and --model-url name two models; leave one of them out.")
    if args.hf_repo:
        repo = args.hf_repo.removeprefix("hf.co/")
        if args.hf_file:
            repo = f"{repo.partition(':')[0]}/{args.hf_file}"
        args.model, args.pull = f"hf.co/{repo}", True
    elif args.model_url:
        args.model, args.pull = args.model_url, True

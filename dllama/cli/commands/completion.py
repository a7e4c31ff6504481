"""dllama completion: what a shell needs to complete commands, flags and models."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.errors import ConfigError

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """examples:
  dllama completion bash >> ~/.bashrc
  dllama completion zsh >> ~/.zshrc
  dllama completion fish > ~/.config/fish/conf.d/dllama.fish"""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "completion", help=summary, epilog=EXAMPLES, formatter_class=HelpFormatter,
        description="Print what a shell reads at its start to complete commands, flags, their "
        "values and the names of models.",
    )  # fmt: skip
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.cli.completing import shell_code

    try:
        print(shell_code(args.shell))
    except ImportError:
        raise ConfigError(
            "Completion needs the package argcomplete: pip install argcomplete."
        ) from None
    return 0

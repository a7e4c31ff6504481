"""dllama chat: talk to a running server in the terminal."""

from __future__ import annotations

import argparse

from dllama.cli.chat_client import ChatClient
from dllama.cli.command_table import Commands
from dllama.cli.flags.arguments import add_length_flag
from dllama.cli.flags.hybrid import add_talk_flags
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.cli.server_address import add_server_flags, address_of
from dllama.cli.terminal.text_input import typed_text


def add_parser(commands: Commands, summary: str) -> None:
    from dllama.cli.talk.commands import HELP

    parser = commands.add_parser(
        "chat", help=summary, description="Talk to a running server.",
        epilog="in the chat:\n" + HELP,
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_server_flags(parser)
    parser.add_argument("--ask", metavar="MODEL", help="which of the server's models answers")
    add_length_flag(parser)
    add_talk_flags(parser)
    add_sampling_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.cli.talk.talking import talk

    fields = given_fields(args)
    if args.n_predict >= 0:
        fields["max_tokens"] = args.n_predict
    if args.ask:
        fields["model"] = args.ask
    client = ChatClient(address_of(args), fields)
    if args.system:
        client.system = typed_text(args.system, "--system")
    return talk(client, is_plain=args.plain, keeps_history=not args.no_history)

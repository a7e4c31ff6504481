"""dllama chat: talk to a running server in the terminal."""

from __future__ import annotations

import argparse

from dllama.cli.chat_client import ChatClient
from dllama.cli.flags.arguments import HelpFormatter
from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.cli.server_address import add_server_flags, key_of
from dllama.cli.terminal.text_input import typed_text


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    from dllama.cli.talk.commands import HELP

    parser = commands.add_parser(
        "chat", help=summary, description="Talk to a running server.",
        epilog="in the chat:\n" + HELP,
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_server_flags(parser)
    parser.add_argument("--ask", metavar="MODEL", help="which of the server's models answers")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="end answers after N tokens")
    parser.add_argument("--plain", action="store_true", help="show Markdown as it was written")
    parser.add_argument("--no-history", action="store_true", help="keep no file of what was typed")
    add_sampling_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.cli.talk.talking import talk

    fields = given_fields(args)
    if args.max_tokens is not None:
        fields["max_tokens"] = args.max_tokens
    if args.ask:
        fields["model"] = args.ask
    client = ChatClient(args.url, key_of(args), fields)
    if args.system:
        client.system = typed_text(args.system, "--system")
    return talk(client, is_plain=args.plain, keeps_history=not args.no_history)

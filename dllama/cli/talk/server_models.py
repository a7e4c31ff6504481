"""The models of the server that a chat talks to, and how fast it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from dllama.cli.chat_client import ChatClient
from dllama.cli.server_address import ServerAddress
from dllama.cli.terminal.output import loading, note
from dllama.errors import ConfigError, DllamaError

TIMEOUT_S = 30.0
LOAD_S = 1800.0
LOOK_S = 0.3

NOT_DOWNLOADED = "not downloaded"
MISSING = (
    "unloaded",
    "sleeping",
    "failed",
    NOT_DOWNLOADED,
)  # the server loads them, or says why not

Row = Mapping[str, Any]


def rows_of(server: ServerAddress) -> list[Row]:
    """Returns the models as /v1/models has them. Raises DllamaError."""
    data = server.ask("GET", "/v1/models", None, TIMEOUT_S).get("data")
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []


def has_choice(server: ServerAddress) -> bool:
    """Returns whether a server has many models, of which each request names one. Raises
    DllamaError."""
    rows = rows_of(server)
    return len(rows) > 1 and any(state_of(row) for row in rows)


def state_of(row: Row) -> str:
    """Returns what a router tells of a model; "" of a server with one model."""
    status = row.get("status")
    if not isinstance(status, dict):
        return ""
    if status.get("downloaded") is False:
        return NOT_DOWNLOADED
    return "failed" if status.get("failed") else str(status.get("value", ""))


def choose_model(client: ChatClient, name: str, ask: Callable[[str], str]) -> None:
    """Has a model answer from now on, after it is loaded; shows a menu where none is named. Raises
    DllamaError."""
    rows = rows_of(client.server)
    names = [str(row.get("id")) for row in rows]
    if not name:
        name = from_menu(rows, str(client.fields.get("model", "")), ask)
        if not name:
            return
    if name not in names:
        raise ConfigError(f"the server has no model {name!r}; it has {', '.join(names)}")
    if state_of(rows[names.index(name)]) in MISSING:
        load(client.server, name)
    client.fields["model"] = name
    note(f"{name} answers from now on")


def from_menu(rows: list[Row], chosen: str, ask: Callable[[str], str]) -> str:
    """Returns the name that the user picks by its number or name; "" for none."""
    for number, row in enumerate(rows, 1):
        mark = "*" if row.get("id") == chosen or len(rows) == 1 else " "
        note(f" {mark}{number:3} {row.get('id')}  {state_of(row)}".rstrip())
    picked = ask("number or name (Enter: stay): ").strip()
    if picked.isdecimal() and 1 <= int(picked) <= len(rows):
        return str(rows[int(picked) - 1].get("id"))
    return picked


def load(server: ServerAddress, name: str) -> None:
    """Has a router load a model, and waits for it. Raises DllamaError."""
    server.ask("POST", "/models/load", {"model": name}, TIMEOUT_S)
    until_s = time.monotonic() + LOAD_S
    with loading(f"loading {name}") as report:
        while time.monotonic() < until_s:
            row = next((row for row in rows_of(server) if row.get("id") == name), {})
            status = row.get("status") or {}
            if status.get("value") == "loaded":
                return
            if status.get("failed"):
                raise DllamaError(f"{name} was not loaded: {status.get('reason')}")
            progress = status.get("progress") or {}
            report(float(progress.get("value") or 0.0), str(status.get("detail") or ""))
            time.sleep(LOOK_S)
    raise DllamaError(f"{name} was not loaded within {LOAD_S / 60:.0f} minutes")


def speed_of(client: ChatClient) -> str:
    """Returns what is known of the last answer, and of each node. Raises DllamaError."""
    lines, timings = [], client.timings
    if timings:
        lines.append(
            f"prompt: {timings['prompt_n']} tokens, {timings['prompt_per_second']:.1f} tokens/s, "
            f"and {timings['cache_n']} that were known; answer: {timings['predicted_n']} tokens, "
            f"{timings['predicted_per_second']:.1f} tokens/s"
        )
    model = client.fields.get("model")
    query = f"?model={quote(str(model))}" if model else ""
    workers = client.server.ask("GET", f"/stats{query}", None, TIMEOUT_S).get("workers")
    for worker in workers if isinstance(workers, list) else ():
        if "compute_ms" not in worker:
            continue
        lines.append(
            f"{worker.get('host', 'local')}: {worker['compute_ms']:.1f} ms a token of computing, "
            f"{worker['wait_ms']:.1f} of waiting, {worker['network_ms']:.1f} of the network"
            + (f"; {worker['finding']}" if worker.get("finding") else "")
        )
    return "\n".join(lines) or "no answer has come yet"

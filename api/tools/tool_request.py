"""The tools that an answer may call, checked, whatever API they came by."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from api.requests.fields import wrong
from dllama.constraints.grammars import Part, check_part, json_part
from dllama.errors import RequestError

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_NO_PARAMETERS: dict[str, object] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. `raw` is what templates are given; `param` is the path of
    its schema in the request."""

    name: str
    parameters: Part
    raw: dict[str, object]
    param: str


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The tools that an answer may call, all of `offered`; it has to call one of them if
    `is_required`, and may call several if `is_parallel`. `rendered` are those that the prompt
    tells of: all that were sent, so that a choice does not change the prompt."""

    offered: tuple[Tool, ...] = ()
    rendered: tuple[Tool, ...] = ()
    is_required: bool = False
    is_parallel: bool = True

    @property
    def raw(self) -> list[Mapping[str, object]] | None:
        return [tool.raw for tool in self.rendered] or None

    async def check(self) -> None:
        """Raises RequestError if a tool's parameters are no JSON schema that can be compiled."""
        if self.offered:
            await asyncio.to_thread(self._check)

    def _check(self) -> None:
        for tool in self.offered:
            check_part(tool.parameters, tool.param)


class NamedFunction(NamedTuple):
    """The one function that an answer has to call."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedFunction


def make_tools(
    functions: Sequence[Mapping[str, object]], paths: Sequence[str], schema: str = "parameters"
) -> tuple[Tool, ...]:
    """Returns the tools that `functions` describe: `name`, `description`, `parameters`. Errors
    name their `paths` in the request, where the parameters are the field `schema`. Raises
    RequestError."""
    if len(functions) > MAX_TOOLS:
        raise wrong("tools", f"a list of at most {MAX_TOOLS} tools", functions)
    found = [make_tool(f, path, schema) for f, path in zip(functions, paths, strict=True)]
    names: set[str] = set()
    for tool, path in zip(found, paths, strict=True):
        if tool.name in names:
            raise RequestError(
                f"`{path}.name` is {tool.name!r}, as another tool's is; give every tool a name of "
                "its own.",
                param=f"{path}.name",
            )
        names.add(tool.name)
    return tuple(found)


def make_tool(function: Mapping[str, object], path: str, schema: str) -> Tool:
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{path}.name", "a name of letters, digits, _ . : / and -", name)
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong(f"{path}.description", "a text", description)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _NO_PARAMETERS
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise wrong(f"{path}.{schema}", "a JSON schema of an object", parameters)
    # Everything stays where the client put it, because templates write tools out as they are;
    # what templates read without asking whether it is there follows at the end.
    schema_shown = {**parameters, **_absent(parameters, _NO_PARAMETERS)}
    shown = {**function, "description": description or "", "parameters": schema_shown}
    told: dict[str, object] = {"type": "function", "function": shown}
    return Tool(name, json_part({"type": "object", **parameters}), told, f"{path}.{schema}")


def _absent(given: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Returns the defaults of keys that are not given."""
    return {key: value for key, value in defaults.items() if key not in given}


def in_their_envelopes(tools: Sequence[Tool], sent: Sequence[object]) -> tuple[Tool, ...]:
    """Returns the tools as a client of OpenAI's chats sent them: a template sees every key of the
    object around a function too, in the client's order."""
    envelopes: dict[object, Mapping[str, object]] = {}
    for envelope in sent:
        function = envelope.get("function") if isinstance(envelope, Mapping) else None
        if isinstance(envelope, Mapping) and isinstance(function, Mapping):
            envelopes.setdefault(function.get("name"), envelope)
    return tuple(
        replace(tool, raw={**envelopes[tool.name], "function": tool.raw["function"]})
        for tool in tools
    )


def choose_tools(found: tuple[Tool, ...], choice: ToolChoice, *, is_parallel: bool) -> ToolRequest:
    """Returns the tools that a choice leaves. Raises RequestError if it leaves none to call."""
    if choice == "auto":
        return ToolRequest(found, found, False, is_parallel)
    if choice == "none":
        return ToolRequest()
    if not found:
        raise RequestError(
            "`tool_choice` asks for a call, but `tools` has none to call; send some.",
            param="tool_choice",
        )
    if choice == "required":
        return ToolRequest(found, found, True, is_parallel)
    named = tuple(tool for tool in found if tool.name == choice.name)
    if not named:
        raise RequestError(
            f"`tool_choice` names {choice.name!r}, which is none of `tools`: "
            f"{', '.join(tool.name for tool in found)[:300]}.",
            param="tool_choice",
        )
    return ToolRequest(named, found, True, False)

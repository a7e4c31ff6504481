"""The tools of a request: `tools`, `tool_choice`, `parallel_tool_calls`, checked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from api.requests.fields import Body, Field, boolean, wrong
from dllama.constraints.grammars import Part, check_part, json_part
from dllama.errors import RequestError

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_NO_PARAMETERS: dict[str, object] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. `raw` is what templates are given."""

    name: str
    parameters: Part
    raw: dict[str, object]


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
        """Raises RequestError where a tool's parameters are no JSON schema that can be kept."""
        if self.offered:
            await asyncio.to_thread(self._check)

    def _check(self) -> None:
        for i, tool in enumerate(self.rendered):
            if tool in self.offered:
                check_part(tool.parameters, f"tools[{i}].function.parameters")


def tools(value: object, name: str) -> tuple[Tool, ...]:
    """A list of functions, as OpenAI describes them."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise wrong(name, f"a list of at most {MAX_TOOLS} tools", value)
    found = tuple(_tool(item, f"{name}[{i}]") for i, item in enumerate(value))
    names = [tool.name for tool in found]
    for i, tool_name in enumerate(names):
        if tool_name in names[:i]:
            raise RequestError(
                f"`{name}[{i}].function.name` is {tool_name!r}, as another tool's is; give every "
                "tool a name of its own.",
                param=f"{name}[{i}].function.name",
            )
    return found


def _tool(value: object, path: str) -> Tool:
    if not isinstance(value, dict) or value.get("type") != "function":
        raise wrong(path, 'an object like {"type": "function", "function": {...}}', value)
    function = value.get("function")
    if not isinstance(function, dict):
        raise wrong(f"{path}.function", "an object with `name` and `parameters`", function)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{path}.function.name", "a name of letters, digits, _ . : / and -", name)
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong(f"{path}.function.description", "a text", description)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _NO_PARAMETERS
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise wrong(f"{path}.function.parameters", "a JSON schema of an object", parameters)
    parameters = {"type": "object", **parameters}
    # Templates read these without asking whether they are there.
    shown = {"properties": {}, **parameters}
    raw = {**function, "description": description or "", "parameters": shown}
    if description is None and "strict" in raw:
        raw.pop("strict")
    return Tool(name, json_part(parameters), {"type": "function", "function": raw})


def tool_choice(value: object, name: str) -> str | dict[str, object]:
    """A word, or {"type": "function", "function": {"name": ...}}, whose name is the result."""
    if value in ("auto", "none", "required"):
        return str(value)
    function = value.get("function") if isinstance(value, dict) else None
    wanted = function.get("name") if isinstance(function, dict) else None
    if not isinstance(wanted, str) or not isinstance(value, dict):
        raise wrong(name, "auto, none, required or a function like "
                    '{"type": "function", "function": {"name": "f"}}', value)  # fmt: skip
    return {"name": wanted}


TOOLS: Field[tuple[Tool, ...], tuple[Tool, ...]] = Field(("tools",), tools, ())
TOOL_CHOICE = Field(("tool_choice",), tool_choice, None)
PARALLEL = Field(("parallel_tool_calls",), boolean, True)

TOOL_FIELDS: tuple[Field[object, object], ...] = (TOOLS, TOOL_CHOICE, PARALLEL)


def parse_tools(body: Body) -> ToolRequest:
    """What a body offers and asks for; RequestError."""
    found, choice, parallel = TOOLS.of(body), TOOL_CHOICE.of(body), PARALLEL.of(body)
    if choice is None or choice == "auto":
        return ToolRequest(found, found, False, parallel)
    if choice == "none":
        return ToolRequest()
    if not found:
        raise RequestError(
            "`tool_choice` asks for a call, but `tools` has none to call; send some.",
            param="tool_choice",
        )
    if choice == "required":
        return ToolRequest(found, found, True, parallel)
    assert isinstance(choice, dict), "words are done with"
    named = tuple(tool for tool in found if tool.name == choice["name"])
    if not named:
        raise RequestError(
            f"`tool_choice` names {choice['name']!r}, which is none of `tools`: "
            f"{', '.join(tool.name for tool in found)[:300]}.",
            param="tool_choice",
        )
    return ToolRequest(named, found, True, False)

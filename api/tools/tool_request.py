"""The tools that an answer may call, checked, whatever API they came by."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from api.requests.fields import wrong
from dllama.constraints.grammars import (
    ANY_OBJECT,
    Part,
    check_part,
    json_part,
    nearest_object,
    refuse_faults,
)
from dllama.errors import RequestError

MAX_TOOLS = 512
MAX_GRAMMAR_CHARS = 512 * 1024  # of all tools together
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_NO_PARAMETERS: dict[str, object] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. `raw` is what templates are given; `param` is the path of
    its schema in the request. All keywords of the schema count if it `is_strict`; otherwise those
    that a grammar can hold."""

    name: str
    schema: dict[str, object]
    raw: dict[str, object]
    param: str
    is_strict: bool = False

    @property
    def parameters(self) -> Part:
        """The grammar of its arguments. Takes long where the schema is new."""
        return json_part(self.schema) if self.is_strict else nearest_object(self.schema)

    def check(self) -> None:
        """Raises RequestError if a schema that is strict has what a grammar cannot hold."""
        if self.is_strict:
            refuse_faults(self.schema, self.param)
            check_part(self.parameters, self.param)


class Offer(NamedTuple):
    """The tools of a request, and the names of those that this server cannot have called."""

    tools: tuple[Tool, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The tools that an answer may call, all of `offered`; it has to call one of them if
    `is_required`, and may call several if `is_parallel`. `rendered` are those that the prompt
    tells of: all that were sent, so that a choice does not change the prompt. `left_out` names
    those that cannot be called."""

    offered: tuple[Tool, ...] = ()
    rendered: tuple[Tool, ...] = ()
    is_required: bool = False
    is_parallel: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def raw(self) -> list[Mapping[str, object]] | None:
        return [tool.raw for tool in self.rendered] or None

    async def check(self) -> None:
        """Makes the grammars of the arguments. Raises RequestError if a strict tool's parameters
        are no JSON schema that can be compiled."""
        if self.offered:
            await asyncio.to_thread(self._check)

    def _check(self) -> None:
        for tool in self.offered:
            tool.check()
        self.grammars()

    def grammars(self) -> list[Part]:
        """Returns the grammar of each offered tool's arguments; the largest take any arguments
        where all together are too large."""
        parts = [tool.parameters for tool in self.offered]
        sizes = [len(str(part.value)) for part in parts]
        largest = sorted(range(len(parts)), key=lambda i: -sizes[i])
        for i in largest:
            if sum(sizes) <= MAX_GRAMMAR_CHARS:
                break
            if not self.offered[i].is_strict:
                parts[i], sizes[i] = nearest_object(ANY_OBJECT), 0
        return parts


class NamedFunction(NamedTuple):
    """The one function that an answer has to call."""

    name: str


class AllowedTools(NamedTuple):
    """The tools that an answer may call, one of which it has to call if `is_required`."""

    names: tuple[str, ...]
    is_required: bool


ToolChoice = Literal["auto", "none", "required"] | NamedFunction | AllowedTools


def make_tools(
    functions: Sequence[Mapping[str, object]],
    paths: Sequence[str],
    schema: str = "parameters",
    left_out: Sequence[str] = (),
) -> Offer:
    """Returns the tools that `functions` describe: `name`, `description`, `parameters`, `strict`.
    Errors name their `paths` in the request, where the parameters are the field `schema`. A second
    tool of the same name is left out. Raises RequestError."""
    if len(functions) > MAX_TOOLS:
        raise wrong("tools", f"a list of at most {MAX_TOOLS} tools", functions)
    found: dict[str, Tool] = {}
    lost = list(left_out)
    for function, path in zip(functions, paths, strict=True):
        tool = make_tool(function, path, schema)
        if tool.name in found:
            lost.append(f"{path}:{tool.name}")
        else:
            found[tool.name] = tool
    return Offer(tuple(found.values()), tuple(lost))


def make_tool(function: Mapping[str, object], path: str, schema: str) -> Tool:
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise wrong(f"{path}.name", "a name of letters, digits, _ . : / and -", name)
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise wrong(f"{path}.description", "a text", description)
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise wrong(f"{path}.strict", "true or false", strict)
    parameters = function.get("parameters")
    if parameters is None:
        parameters = _NO_PARAMETERS
    if not isinstance(parameters, dict):
        raise wrong(f"{path}.{schema}", "a JSON schema of an object", parameters)
    if strict and parameters.get("type", "object") != "object":
        raise wrong(f"{path}.{schema}", "a JSON schema of an object", parameters)
    # Everything stays where the client put it, because templates write tools out as they are;
    # what templates read without asking whether it is there follows at the end.
    schema_shown = {**parameters, **_absent(parameters, _NO_PARAMETERS)}
    shown = {**function, "description": description or "", "parameters": schema_shown}
    told: dict[str, object] = {"type": "function", "function": shown}
    whole = {"type": "object", **parameters}
    return Tool(name, whole, told, f"{path}.{schema}", is_strict=bool(strict))


def _absent(given: Mapping[str, object], defaults: Mapping[str, object]) -> dict[str, object]:
    """Returns the defaults of keys that are not given."""
    return {key: value for key, value in defaults.items() if key not in given}


def in_their_envelopes(
    tools: Sequence[Tool], sent: Sequence[Mapping[str, object]]
) -> tuple[Tool, ...]:
    """Returns the tools as a client of OpenAI's chats sent them: a template sees every key of the
    object around a function too, in the client's order."""
    envelopes: dict[object, Mapping[str, object]] = {}
    for envelope in sent:
        function = envelope.get("function")
        if isinstance(function, Mapping):
            envelopes.setdefault(function.get("name"), envelope)
    return tuple(
        replace(tool, raw={**envelopes.get(tool.name, tool.raw), "function": tool.raw["function"]})
        for tool in tools
    )


def choose_tools(offer: Offer, choice: ToolChoice, *, is_parallel: bool) -> ToolRequest:
    """Returns the tools that a choice leaves. Raises RequestError if it asks for a call and leaves
    none to call."""
    found, left_out = offer
    if choice == "auto":
        return ToolRequest(found, found, False, is_parallel, left_out)
    if choice == "none":
        return ToolRequest(left_out=left_out)
    if isinstance(choice, AllowedTools):
        offered = tuple(tool for tool in found if tool.name in choice.names)
        if offered or not choice.is_required:
            return ToolRequest(offered, found, choice.is_required, is_parallel, left_out)
        raise _nothing_to_call(found, f"allows {', '.join(choice.names)[:200]}")
    if choice == "required":
        if found:
            return ToolRequest(found, found, True, is_parallel, left_out)
        raise _nothing_to_call(found, "asks for a call")
    named = tuple(tool for tool in found if tool.name == choice.name)
    if not named:
        raise _nothing_to_call(found, f"names {choice.name!r}")
    return ToolRequest(named, found, True, False, left_out)


def _nothing_to_call(found: Sequence[Tool], asked: str) -> RequestError:
    names = ", ".join(tool.name for tool in found)[:300] or "none"
    return RequestError(
        f"`tool_choice` {asked}, but the functions among `tools`, which alone can be called, are "
        f"{names}. Send the function, or another choice.",
        param="tool_choice",
    )

"""How OpenAI's two APIs write tools and choices among them: chats with the function in an object of
its own, responses without."""

from __future__ import annotations

from collections.abc import Mapping

from api.requests.fields import a_list, mapping, type_of, wrong
from api.tools.tool_request import AllowedTools, NamedFunction, ToolChoice

CHOICES: dict[object, ToolChoice] = {
    "auto": "auto", "none": "none", "required": "required", "any": "required",
}  # fmt: skip


def tool_kind(tool: object, path: str) -> str:
    """Returns the type of a tool, "function" where it is one without saying so."""
    found = mapping(tool, path)
    kind = type_of(found)
    if kind is None and ("function" in found or "name" in found):
        return "function"
    if not isinstance(kind, str):
        raise wrong(path, 'an object like {"type": "function", "function": {...}}', tool)
    return kind


def function_of(tool: object, path: str) -> Mapping[str, object]:
    """Returns the function that a tool of the type "function" describes."""
    found = mapping(tool, path)
    function = found.get("function", found if "name" in found else None)
    if not isinstance(function, dict):
        raise wrong(f"{path}.function", "an object with `name` and `parameters`", function)
    return function


def name_of(value: object) -> str | None:
    """Returns the name of the tool that a choice means, None if it has none."""
    if not isinstance(value, dict):
        return None
    for inner in (value.get("function"), value.get("custom"), value):
        name = inner.get("name") if isinstance(inner, dict) else None
        if isinstance(name, str):
            return name
    kind = type_of(value)
    return kind if isinstance(kind, str) else None


def tool_choice(value: object, name: str) -> ToolChoice:
    """Reads a word, a tool by name, or the tools that are allowed."""
    kind = type_of(value) if isinstance(value, dict) else value
    if isinstance(kind, str) and kind in CHOICES:
        return CHOICES[kind]
    if kind == "allowed_tools" and isinstance(value, dict):
        return _allowed(mapping(value.get("allowed_tools", value), name), name)
    wanted = name_of(value)
    if wanted is None:
        raise wrong(
            name,
            'auto, none, required, or a function like {"type": "function", "function": '
            '{"name": "f"}}',
            value,
        )
    return NamedFunction(wanted)


def _allowed(value: Mapping[str, object], name: str) -> AllowedTools:
    mode = value.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise wrong(f"{name}.mode", "auto or required", mode)
    names = [name_of(tool) for tool in a_list(value.get("tools"), f"{name}.tools")]
    return AllowedTools(tuple(n for n in names if n is not None), mode == "required")

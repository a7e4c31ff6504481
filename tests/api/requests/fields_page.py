"""docs/fields.md, made of the parsers and of their tables. This writes it:
`python -m tests.api.requests.fields_page`."""

from __future__ import annotations

from pathlib import Path

import orjson

from api.requests import anthropic, native, openai, responses, verdicts
from api.requests.fields import Field
from api.requests.generation import GENERATION, INCLUDE_USAGE
from api.requests.verdicts import Rule, Rules, Verdict
from api.routes import embeddings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fields.md"
Fields = tuple[Field[object, object], ...]

# The columns: an API, the fields that it honours, and what becomes of the others.
APIS: dict[str, tuple[Fields, Rules]] = {
    "chat": (tuple(openai.CHAT), verdicts.CHAT),
    "completions": (tuple(openai.COMPLETION), verdicts.COMPLETION),
    "responses": (responses.FIELDS, verdicts.RESPONSES),
    "messages": (anthropic.FIELDS, verdicts.MESSAGES),
    "llama-server": (
        (*GENERATION, *native.NATIVE, native.PROMPT, *native.INFILL), verdicts.NATIVE,
    ),
    "embeddings": (embeddings.FIELDS, verdicts.EMBEDDINGS),
}  # fmt: skip
PARTS: dict[str, tuple[Fields, Rules]] = {
    "stream_options": ((INCLUDE_USAGE,), verdicts.STREAM_OPTIONS),
    "reasoning": ((responses.EFFORT,), verdicts.REASONING),
    "text": ((responses.FORMAT,), verdicts.TEXT),
    "output_config": ((anthropic.EFFORT, anthropic.FORMAT), verdicts.OUTPUT_CONFIG),
    "thinking": ((anthropic.TYPE,), verdicts.THINKING),
}  # fmt: skip

HEAD = """# Fields of requests

What becomes of every field that clients of OpenAI, Anthropic and llama-server are known to send.
The page is made of the parsers and tables in `api/requests/`, and a test compares.

- **honoured**: it changes the answer as its maker says.
- **taken**: it cannot change the answer.
- **left out**: it could, and does not. The header `X-Dllama-Ignored` of the response names it, and
  the log does once. So it is with fields whose cell is empty, or that are not on this page. A
  server that was started with `--strict-fields` refuses all of them by name.
- **refused**: an answer without it would be wrong: a 400 whose `param` is its name.

Null, `""`, `[]` and `{}` say nothing, and neither does the default of a field (in parentheses):
they are never refused. Whole numbers may be written as 8.0. A number outside its range means the
nearest inside, where llama-server has it so. Of several names of one field the first counts.
"""
TAIL = """
## Tools, messages, schemas

- **Tools** that the client runs (`function`, Anthropic's `custom`) are honoured. All others
  (`web_search`, `code_interpreter`, `mcp`, `custom` of OpenAI, computer use, ...) are left out,
  and so is a second tool of the same name. `tool_choice` is refused if it forces one that cannot
  be called.
- **Parameters** of a tool: the arguments of a call follow the nearest grammar to the JSON schema.
  Keywords that no grammar knows (`not`, `if`, `uniqueItems`, `contains`, `propertyNames`,
  `dependentRequired`, `unevaluatedProperties`, look-arounds of a `pattern`, unknown values of
  `format`, ...) do not count. With `strict: true` they are refused with their path.
- **`response_format`**, `json_schema`, `text.format`, `output_config.format`: the same, and
  keywords that do not count are named in the header. What is no JSON schema is refused.
- **Parts of messages**: text is honoured, and Anthropic's `document` with text and
  `search_result`. Images, sound and files are refused. Thoughts of other servers that are
  encrypted are taken. Calls and results of tools that ran elsewhere are left out, but what a
  client's own tool (a shell, a patch) was asked and has answered is honoured.
- **`model`**: a server of one model serves it under any name, and the reply tells its own; with
  several models an unknown name is a 404.
"""


def rows(apis: dict[str, tuple[Fields, Rules]]) -> list[str]:
    """The lines of a table with a row for each field."""
    names: dict[str, None] = {}
    for fields, rules in apis.values():
        names |= dict.fromkeys(name for field in fields for name in field.names)
        names |= dict.fromkeys(rules)
    head = f"| field | {' | '.join(apis)} | |"
    lines = [head, "|---" * (len(apis) + 2) + "|"]
    for name in sorted(names):
        cells = [cell(name, *api) for api in apis.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {why(name, apis)} |")
    return lines


def cell(name: str, fields: Fields, rules: Rules) -> str:
    if any(name in field.names for field in fields):
        return Verdict.HONOURED
    rule = rules.get(name)
    return "" if rule is None else f"{rule.verdict}{offs(rule)}"


def offs(rule: Rule) -> str:
    shown = [orjson.dumps(off).decode() for off in rule.off if off != -1.0 or type(off) is int]
    return f" ({', '.join(shown)})" if shown else ""


def why(name: str, apis: dict[str, tuple[Fields, Rules]]) -> str:
    reasons = {
        rules[name].why
        for fields, rules in apis.values()
        if name in rules and not any(name in field.names for field in fields)
    }
    return "; ".join(sorted(reasons))


def page() -> str:
    lines = [HEAD, "## Fields", "", *rows(APIS), "", "## Fields within fields", ""]
    for part, api in PARTS.items():
        lines += [*rows({f"in `{part}`": api}), ""]
    return "\n".join(lines) + TAIL.lstrip("\n")


if __name__ == "__main__":
    PAGE.write_text(page())

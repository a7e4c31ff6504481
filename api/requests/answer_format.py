"""The fields that hold an answer to a form: `response_format`, `json_schema`, `grammar`, `regex`.
At most one of them may be set; the result is a part of a grammar, not yet compiled."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from api.requests.fields import Body, Field, mapping, string, wrong
from dllama.constraints.grammars import (
    ANY_OBJECT,
    MAX_SOURCE_CHARS,
    GrammarKind,
    Part,
    check_part,
    json_part,
    nearest_part,
    refuse_faults,
    source_part,
)
from dllama.errors import RequestError

# A text is Lark where it has a rule of Lark's for the beginning; GBNF's is `root ::=`.
_IS_LARK = re.compile(r"(?m)^\s*(%llguidance\b|start\s*:(?!:=))")
_FORMATS = "{'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', ...}"


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The grammar of an answer, and the field that asked for it. `left_out` names the keywords of a
    schema that it does not hold an answer to."""

    part: Part
    param: str
    left_out: tuple[str, ...] = ()

    async def check(self) -> None:
        """Raises RequestError, naming the field, where the grammar cannot be compiled."""
        await asyncio.to_thread(check_part, self.part, self.param)


def response_format(value: object, name: str) -> AnswerFormat | None:
    """OpenAI's, and llama-server's json_object with a `schema`."""
    form = mapping(value, name)
    kind = form.get("type")
    if kind == "text" or not form:
        return None
    if kind == "json_object":
        return schema_format(form.get("schema") or ANY_OBJECT, f"{name}.schema", name)
    if kind == "json_schema":
        inner = form.get("json_schema")
        if not isinstance(inner, dict):
            raise wrong(f"{name}.json_schema", "an object with `name` and `schema`", inner)
        return named_schema(inner, f"{name}.json_schema", name)
    raise RequestError(f"`{name}.type` must be one of {_FORMATS}.", param=f"{name}.type")


def named_schema(form: Mapping[str, object], path: str, name: str) -> AnswerFormat:
    """The `schema` of an object at `path` that has `name`, `schema` and `strict`."""
    strict = form.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise wrong(f"{path}.strict", "true or false", strict)
    schema = form.get("schema")
    if schema is None or schema == {}:
        schema = ANY_OBJECT
    return schema_format(schema, f"{path}.schema", name, is_strict=bool(strict))


def json_schema(value: object, name: str) -> AnswerFormat | None:
    """A bare schema, or a text that holds one."""
    if value == "":
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"`{name}` is no JSON: {error}.", param=name) from None
    return schema_format(value, name, name)


def grammar(value: object, name: str) -> AnswerFormat | None:
    """GBNF, or Lark in llguidance's dialect; an empty text is none."""
    source = _source(value, name)
    if not source.strip():
        return None
    kind = GrammarKind.LARK if _IS_LARK.search(source) else GrammarKind.GBNF
    return _format(kind, source, name)


def regex(value: object, name: str) -> AnswerFormat | None:
    source = _source(value, name)
    return _format(GrammarKind.REGEX, source, name) if source else None


def _source(value: object, name: str) -> str:
    source = string(value, name)
    if len(source) > MAX_SOURCE_CHARS:
        raise RequestError(
            f"`{name}` has {len(source)} characters; at most {MAX_SOURCE_CHARS} are taken.",
            param=name,
        )
    return source


def schema_format(schema: object, path: str, name: str, *, is_strict: bool = False) -> AnswerFormat:
    """The form of a JSON schema at `path`, which the field `name` asks for. Keywords that no
    grammar can hold are left out, or refused if the form `is_strict`."""
    if not isinstance(schema, dict | bool):
        raise wrong(path, "a JSON schema", schema)
    try:
        refuse_faults(schema, path, only_malformed=not is_strict)
        if is_strict:
            return AnswerFormat(json_part(schema), name)
        part, faults = nearest_part(schema)
        return AnswerFormat(part, name, tuple(f"{path}{fault.path}" for fault in faults))
    except RequestError as error:
        raise RequestError(str(error), param=name) from None


def _format(kind: GrammarKind, source: str, name: str) -> AnswerFormat:
    try:
        return AnswerFormat(source_part(kind, source), name)
    except RequestError as error:
        raise RequestError(str(error), param=name) from None


RESPONSE_FORMAT = Field(("response_format",), response_format, None)
JSON_SCHEMA = Field(("json_schema", "guided_json"), json_schema, None)
GRAMMAR = Field(("grammar", "guided_grammar"), grammar, None)
REGEX = Field(("regex", "guided_regex"), regex, None)

FLAG_FORMS = ("grammar", "json_schema")  # that the server's flags set, where no request does

# Fields of this server, on every generating route.
FORMATS: tuple[Field[object, object], ...] = (JSON_SCHEMA, GRAMMAR, REGEX)


def one_format(body: Body, own: AnswerFormat | None) -> AnswerFormat | None:
    """The one form that a body asks for, by FORMATS or by its API's `own` field. Raises
    RequestError if there are two."""
    forms = [own, JSON_SCHEMA.of(body), GRAMMAR.of(body), REGEX.of(body)]
    found = [form for form in forms if form is not None]
    if len(found) > 1:
        first, second = found[0].param, found[1].param
        raise RequestError(
            f"`{first}` and `{second}` both say what the answer may be; send one of them.",
            param=second,
        )
    return found[0] if found else None

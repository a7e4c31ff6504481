"""The Jinja that chat templates are written in: jinja2's sandbox with what `transformers` adds,
and limits, because a template is code that came with a model from somewhere.

Source of the dialect: transformers' utils/chat_template_utils.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from secrets import token_hex
from typing import Any, NamedTuple

from jinja2 import TemplateError as JinjaError
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dllama.chat.limits import (
    TurnCounter,
    check_operands,
    check_text_call,
    join_limited,
    limited_filter,
    replace_filter,
)


class Refusal(JinjaError):
    """A template called raise_exception: the messages are not as it wants them."""


class CountedTemplate(NamedTuple):
    """`render` makes a text of variables; `names` are all that the template names."""

    render: Callable[[Mapping[str, object]], str]
    names: frozenset[str]


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates. `now` is what `strftime_now` tells."""

    intercepted_binops: frozenset[str] = frozenset({"+", "*", "**", "%"})

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, LoopControlExtension],
        )
        self.filters["tojson"] = _tojson
        self.filters["replace"] = replace_filter
        for name in ("center", "format", "indent"):
            self.filters[name] = limited_filter(name, self.filters[name])
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda form: now().strftime(form)

    def compile_counted(self, source: str) -> CountedTemplate:
        """A template that raises whatever goes wrong in it. Raises jinja2's TemplateSyntaxError."""
        tree = self.parse(source)
        names = frozenset(name.name for name in tree.find_all(nodes.Name))
        turn = f"_turn_{token_hex(8)}"  # a name that no template can know, and set to another thing
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, _count_turn(turn, loop.lineno))
        for macro in tree.find_all(nodes.Macro):
            macro.body.insert(0, _count_turn(turn, macro.lineno))
        template = self.from_string(tree)

        def render(variables: Mapping[str, object]) -> str:
            turns = TurnCounter()
            return join_limited(template.generate({**variables, turn: turns.count}))

        return CountedTemplate(render, names)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Operators, but for those that would make a huge value."""
        check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Calls, but for methods of texts that would make a huge one."""
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox wraps format
        text = getattr(method, "__self__", None)
        if isinstance(text, str):
            check_text_call(text, method.__name__, args)
        return super().call(__context, __obj, *args, **kwargs)

    def join_texts(self, parts: Iterable[object]) -> str:
        """Computes the operator `~`, limited."""
        return join_limited(map(str, parts))


class _LimitedCode(CodeGenerator):
    """Compiles `~` to a call of the environment, which limits it."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join_texts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


ChatEnvironment.code_generator_class = _LimitedCode


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's words for training; here it changes nothing."""

    tags: set[str] = {"generation"}  # noqa: RUF012, as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_same", [])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _same(self, caller: Macro) -> str:
        text: str = caller()
        return text


def _count_turn(turn: str, line: int) -> nodes.Node:
    call = nodes.Call(nodes.Name(turn, "load"), [], [], None, None)
    return nodes.ExprStmt(call).set_lineno(line)


def _raise_exception(message: object) -> None:
    raise Refusal(str(message))


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Python writes it, not escaped for HTML as jinja2's own filter does."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )

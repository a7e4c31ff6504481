"""How each family of models writes a tool call: a table. Adding a family is adding a row.

A call is mostly a JSON object of a name and arguments, or its arguments alone after a frame with
its name; the rows differ in what stands around it.
Source: the chat templates of the models' makers."""

from __future__ import annotations

import json
import re
import secrets
import string
from dataclasses import dataclass

from api.tools.tagged import TAGS
from dllama.plugins import TOOL_DIALECTS as PLUGINS
from dllama.plugins import load_all


@dataclass(frozen=True, slots=True)
class ToolDialect:
    """An answer's calls are: `opening`, then each call between `before` and `after`, with
    `between` among them, then `closing`. `mark` is the first text of that, by which a call is
    told from other text; where a call `is_bare` it may also begin the answer without its mark.
    """

    name: str
    signs: tuple[str, ...]  # texts of a chat template by which the dialect is known, one of them
    mark: str
    opening: str = ""
    before: str = ""
    after: str = ""
    between: str = ""
    closing: str = ""
    arguments_key: str = "arguments"
    frame: str = ""  # what stands before a call's arguments, with NAME and perhaps NUMBER in it;
    # empty: a call is a JSON object
    controls: tuple[str, ...] = ()  # further texts of the frames that may be control tokens
    is_bare: bool = False
    is_single: bool = False  # the models were made for one call a turn
    has_short_ids: bool = False  # nine letters and digits, which the templates insist on
    describes_tools: bool = True  # the template does, so that the server need not
    has_channels: bool = False  # all of an answer is in Harmony, and so are its calls
    has_tags: bool = False  # a call is no JSON: its arguments stand between tags, see tagged.py
    is_pythonic: bool = False  # a call is a call of Python with named arguments, see pythonic.py
    text_opening: str = ""  # a mark before an answer's text, which is no content
    has_citations: bool = False  # the text tells its sources, see api/answers/citations.py

    @property
    def marks(self) -> tuple[str, ...]:
        """The texts of calls by which they are read, any of which may be a control token."""
        return TAGS if self.has_tags else (self.mark, *self.controls)

    @property
    def bare_opening(self) -> str:
        """The text before calls that begin an answer without the mark."""
        return self.opening.removeprefix(self.mark)

    @property
    def bare_closing(self) -> str:
        """The text after such calls: no control token stands there."""
        ends = (mark for mark in self.controls if self.closing.endswith(mark))
        return self.closing.removesuffix(next(ends, ""))

    def head(self, name: str, number: int = 0) -> str:
        """Returns the text of a call up to its arguments; some dialects count calls."""
        if self.frame:
            return self.frame.replace(NAME, name).replace(NUMBER, str(number))
        return f'{{"name": {json.dumps(name)}, "{self.arguments_key}": '

    @property
    def tail(self) -> str:
        """What follows the arguments, before `after`."""
        return "" if self.frame else "}"

    def head_pattern(self, name: str) -> re.Pattern[str]:
        """Returns what `head` may return for any number; its group `id` is the id that a call is
        written with, where there is one."""
        if not self.frame:
            return re.compile(re.escape(self.head(name)))

        def pattern(text: str) -> str:
            return re.escape(text.replace(NAME, name)).replace(re.escape(NUMBER), "[0-9]{1,9}")

        before, counted, after = self.frame.partition(COUNTED)
        whole = f"(?P<id>{pattern(counted)})" if counted else ""
        start = WORD_START if self.is_pythonic else ""
        return re.compile(f"{start}{pattern(before)}{whole}{pattern(after)}")

    def new_id(self) -> str:
        """Returns an id for a call, as the dialect's templates take it."""
        if self.has_short_ids:
            return "".join(secrets.choice(_LETTERS) for _ in range(SHORT_ID_CHARS))
        return f"call_{secrets.token_hex(12)}"


NAME, NUMBER = "{name}", "{number}"
COUNTED = f"functions.{NAME}:{NUMBER}"
SHORT_ID_CHARS = 9
WORD_START = r"(?<![A-Za-z0-9_.:/-])"
_LETTERS = string.ascii_letters + string.digits

HERMES = ToolDialect(
    name="hermes",  # Hermes 2 and 3 Pro, Qwen 2.5 and 3, QwQ
    signs=("<tool_call>",),
    mark="<tool_call>",
    before="<tool_call>\n",
    after="\n</tool_call>",
    between="\n",
)
GLM = ToolDialect(
    name="glm",  # GLM-4.5, 4.6, 4.7
    signs=("<arg_key>",),
    mark="<tool_call>",
    before="<tool_call>",
    after="</tool_call>",
    between="\n",
    has_tags=True,
)
MISTRAL = ToolDialect(
    name="mistral",  # Nemo, 7B v0.3, Small, Large
    signs=("[TOOL_CALLS]",),
    mark="[TOOL_CALLS]",
    opening="[TOOL_CALLS][",
    between=", ",
    closing="]",
    has_short_ids=True,
)
LLAMA3 = ToolDialect(
    name="llama3",  # Llama 3.1, 3.2, 3.3
    signs=("<|python_tag|>", '"parameters": ', "Environment: ipython"),
    mark="<|python_tag|>",
    opening="<|python_tag|>",
    between="; ",
    arguments_key="parameters",
    is_bare=True,
    is_single=True,
)
FIREFUNCTION = ToolDialect(
    name="firefunction",  # Firefunction v2
    signs=("functools[",),
    mark="functools[",
    opening="functools[",
    between=", ",
    closing="]",
)
HARMONY = ToolDialect(
    name="harmony",  # gpt-oss: see harmony.py
    signs=("<|channel|>commentary",),
    mark="<|channel|>commentary",
    is_single=True,
    has_channels=True,
)
_DEEPSEEK_MARKS = (
    "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>",
)  # fmt: skip
DEEPSEEK_R1 = ToolDialect(
    name="deepseek-r1",  # DeepSeek-V3, V3-0324, R1, R1-0528
    signs=("['type'] + '<｜tool▁sep｜>'", "function<｜tool▁sep｜>"),
    mark="<｜tool▁calls▁begin｜>",
    opening="<｜tool▁calls▁begin｜>",
    frame=f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{NAME}\n```json\n",
    after="\n```<｜tool▁call▁end｜>",
    between="\n",
    closing="<｜tool▁calls▁end｜>",
    controls=_DEEPSEEK_MARKS,
)
DEEPSEEK = ToolDialect(
    name="deepseek",  # DeepSeek-V3.1
    signs=("<｜tool▁sep｜>",),
    mark="<｜tool▁calls▁begin｜>",
    opening="<｜tool▁calls▁begin｜>",
    frame=f"<｜tool▁call▁begin｜>{NAME}<｜tool▁sep｜>",
    after="<｜tool▁call▁end｜>",
    closing="<｜tool▁calls▁end｜>",
    controls=_DEEPSEEK_MARKS,
)
KIMI = ToolDialect(
    name="kimi",  # Kimi-K2; ids of calls are their names and numbers
    signs=("<|tool_call_argument_begin|>",),
    mark="<|tool_calls_section_begin|>",
    opening="<|tool_calls_section_begin|>",
    frame=f"<|tool_call_begin|>{COUNTED}<|tool_call_argument_begin|>",
    after="<|tool_call_end|>",
    closing="<|tool_calls_section_end|>",
    controls=(
        "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
    ),
)  # fmt: skip
COMMAND = ToolDialect(
    name="command",  # Command R7B, Command A, Command A Reasoning; the numbers of calls go on
    # through a conversation, and templates count them anew, so that ids are our own
    signs=("<|START_ACTION|>",),
    mark="<|START_ACTION|>",
    opening="<|START_ACTION|>[\n    ",
    frame=f'{{"tool_call_id": "{NUMBER}", "tool_name": "{NAME}", "parameters": ',
    after="}",
    between=",\n    ",
    closing="\n]<|END_ACTION|>",
    controls=("<|END_ACTION|>",),
    text_opening="<|START_RESPONSE|>",
    has_citations=True,
)
LLAMA4 = ToolDialect(
    name="llama4",  # Llama 4 by the template of its makers, which writes one call after the other
    signs=("<|python_start|>", "<|header_start|>"),
    mark="<|python_start|>",
    opening="<|python_start|>",
    closing="<|python_end|>",
    controls=("<|python_end|>",),
    arguments_key="parameters",
    is_bare=True,
)
LLAMA4_PYTHONIC = ToolDialect(
    name="llama4-pythonic",  # Llama 4 and 3.2 by templates that ask for calls of Python
    signs=("[func_name1(",),
    mark="<|python_start|>",
    opening="<|python_start|>[",
    frame=f"{NAME}(",
    after=")",
    between=", ",
    closing="]<|python_end|>",
    controls=("<|python_end|>",),
    is_bare=True,
    is_pythonic=True,
)
GENERIC = ToolDialect(
    name="generic",  # templates that know no tools: told in words, see history.py
    signs=(),
    mark="<tool_call>",
    before="<tool_call>\n",
    after="\n</tool_call>",
    between="\n",
    describes_tools=False,
)
OWN_DIALECTS = (
    GLM, HERMES, MISTRAL, FIREFUNCTION, HARMONY, DEEPSEEK_R1, DEEPSEEK, KIMI, COMMAND,
    LLAMA4_PYTHONIC, LLAMA4, LLAMA3,
)  # fmt: skip
TOOL_DIALECTS = (
    *load_all(
        PLUGINS,
        ToolDialect,
        lambda dialect: dialect.name,
        [dialect.name for dialect in (*OWN_DIALECTS, GENERIC)],
    ),
    *OWN_DIALECTS,
)
"""The first whose signs a template has; those of plugins were installed for a reason."""


def dialect_of(template_sources: tuple[str, ...]) -> ToolDialect:
    """Returns the dialect that a model's chat templates are written for; the generic one if they
    know no tools. The template for conversations with tools comes first."""
    for source in template_sources:
        if "tools" not in source:
            continue
        for dialect in TOOL_DIALECTS:
            if any(sign in source for sign in dialect.signs):
                return dialect
    return GENERIC

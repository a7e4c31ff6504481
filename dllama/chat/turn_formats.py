"""The chat formats that llama-server has names for, as a table of what stands around each message;
Jinja is made of a row. Written for this project after the formats that the models' makers
document.

A model's own template knows more (tools, thoughts): these are for files without one."""

from __future__ import annotations

from typing import NamedTuple

Around = tuple[str, str]  # what stands before and after a message's text

OTHER = "{role}"  # in `Around`: the role's name
UPPER = "{ROLE}"  # HUMAN for the user


class TurnFormat(NamedTuple):
    """`asks` opens an answer, `begins` the whole prompt. `trims` are the roles whose text is
    stripped; `no_system` stands first in a conversation without a system message. With
    `merges_system` that text is put before the first user's."""

    system: Around
    user: Around
    assistant: Around
    asks: str = ""
    begins: str = ""
    trims: tuple[str, ...] = ()
    tool: Around | None = None
    no_system: str = ""
    merges_system: bool = False


ALL = ("system", "user", "assistant", "tool")


def same(before: str, after: str, asks: str, **more: object) -> TurnFormat:
    """The format of one frame for all roles."""
    around = before, after
    return TurnFormat(around, around, around, asks, **more)  # type: ignore[arg-type]


def llama2(system: Around, *, bos: str = "", trims: tuple[str, ...] = ()) -> TurnFormat:
    """Llama 2: the first user message is in the frame that the system message has opened."""
    inst = f"{bos}[INST] "
    return TurnFormat(system, (inst, " [/INST]"), ("", "</s>"), trims=trims)


def mistral(space: str, *, lead: str = "", trims: tuple[str, ...] = ()) -> TurnFormat:
    """Mistral: the system text opens the frame of the first user message."""
    inst = f"{lead}[INST]{space}"
    return TurnFormat((inst, "\n\n"), (inst, f"{lead}[/INST]"), (space, "</s>"), trims=trims)


def granite() -> TurnFormat:
    return same(
        "<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>\n",
        "<|start_of_role|>assistant<|end_of_role|>",
    )  # fmt: skip


def exaone() -> TurnFormat:
    return TurnFormat(
        ("[|system|]", "[|endofturn|]\n"), ("[|user|]", "\n"),
        ("[|assistant|]", "[|endofturn|]\n"), "[|assistant|]", trims=ALL,
        tool=("[|tool|]", "[|endofturn|]\n"),
    )  # fmt: skip


COMMAND = "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>"
COMMAND_END = "<|END_OF_TURN_TOKEN|>"

# Formats whose system text opens the frame of the first user message.
JOINED = frozenset({
    "llama2-sys", "llama2-sys-bos", "llama2-sys-strip", "mistral-v1", "mistral-v3",
    "mistral-v3-tekken",
})  # fmt: skip

TURN_FORMATS: dict[str, TurnFormat] = {
    "llama2-sys": llama2(("[INST] <<SYS>>\n", "\n<</SYS>>\n\n")),
    "llama2-sys-bos": llama2(("[INST] <<SYS>>\n", "\n<</SYS>>\n\n"), bos="<s>"),
    "llama2-sys-strip": llama2(("[INST] <<SYS>>\n", "\n<</SYS>>\n\n"), trims=ALL),
    "mistral-v1": mistral(" ", lead=" "),
    "mistral-v3": mistral(" ", trims=("assistant",)),
    "mistral-v3-tekken": mistral(""),
    "mistral-v7-tekken": TurnFormat(
        ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), ("[INST]", "[/INST]"), ("", "</s>")
    ),
    "phi4": same("<|im_start|>{role}<|im_sep|>", "<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
    "falcon3": same("<|{role}|>\n", "\n", "<|assistant|>\n"),
    "monarch": same("<s>{role}\n", "</s>\n", "<s>assistant\n"),
    "orion": TurnFormat(
        ("", ""), ("Human: ", "\n\nAssistant: </s>"), ("", "</s>"), merges_system=True
    ),
    "openchat": TurnFormat(
        ("", "<|end_of_turn|>"), ("GPT4 Correct User: ", "<|end_of_turn|>"),
        ("GPT4 Correct Assistant: ", "<|end_of_turn|>"), "GPT4 Correct Assistant:",
    ),
    "vicuna-orca": TurnFormat(
        ("SYSTEM: ", "\n"), ("USER: ", "\n"), ("ASSISTANT: ", "</s>\n"), "ASSISTANT:"
    ),
    "deepseek": TurnFormat(
        ("", ""), ("### Instruction:\n", "\n"), ("### Response:\n", "\n<|EOT|>\n"),
        "### Response:\n",
    ),
    "deepseek2": TurnFormat(
        ("", "\n\n"), ("User: ", "\n\n"), ("Assistant: ", "<｜end▁of▁sentence｜>"), "Assistant:"
    ),
    "deepseek3": TurnFormat(
        ("", "\n\n"), ("<｜User｜>", ""), ("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        "<｜Assistant｜>",
    ),
    "deepseek-ocr": same("", "", ""),
    "command-r": TurnFormat(
        (COMMAND.format("SYSTEM"), COMMAND_END), (COMMAND.format("USER"), COMMAND_END),
        (COMMAND.format("CHATBOT"), COMMAND_END), COMMAND.format("CHATBOT"), trims=ALL,
    ),
    "chatglm3": same("<|{role}|>\n ", "", "<|assistant|>", begins="[gMASK]sop"),
    "chatglm4": same("<|{role}|>\n", "", "<|assistant|>\n", begins="[gMASK]<sop>"),
    "glmedge": same("<|{role}|>\n", "", "<|assistant|>"),
    "minicpm": TurnFormat(("", ""), ("<用户>", "<AI>"), ("", ""), trims=ALL),
    "exaone3": exaone(),
    "exaone4": exaone(),
    "exaone-moe": same("<|{role}|>\n", "<|endofturn|>\n", "<|assistant|>\n", trims=ALL),
    "rwkv-world": TurnFormat(
        ("System: ", "\n\n"), ("User: ", "\n\n"), ("Assistant: ", "\n\n"), "Assistant:", trims=ALL
    ),
    "granite": granite(),
    "granite-4.0": granite(),
    "granite-4.1": granite(),
    "gigachat": TurnFormat(
        ("", "<|message_sep|>"),
        ("user<|role_sep|>", "<|message_sep|>available functions<|role_sep|>[]<|message_sep|>"),
        ("assistant<|role_sep|>", "<|message_sep|>"), "assistant<|role_sep|>", begins="<s>",
    ),
    "megrez": same(
        "<|role_start|>{role}<|role_end|>", "<|turn_end|>", "<|role_start|>assistant<|role_end|>"
    ),
    "yandex": TurnFormat(
        ("", ""), (" Пользователь: ", "\n\n"), (" Ассистент: ", "\n\n"), " Ассистент:[SEP]"
    ),
    "bailing": same("<role>{ROLE}</role>", "", "<role>ASSISTANT</role>"),
    "bailing-think": same("<role>{ROLE}</role>", "", "<role>ASSISTANT</role><think>"),
    "bailing2": same(
        "<role>{ROLE}</role>", "<|role_end|>", "<role>ASSISTANT</role>",
        no_system="<role>SYSTEM</role>detailed thinking off<|role_end|>",
    ),
    "llama4": same(
        "<|header_start|>{role}<|header_end|>\n\n", "<|eot|>",
        "<|header_start|>assistant<|header_end|>\n\n", trims=ALL,
    ),
    "smolvlm": TurnFormat(
        ("", "\n\n"), ("User: ", "<end_of_utterance>\n"), ("Assistant: ", "<end_of_utterance>\n"),
        "Assistant:", begins="<|im_start|>",
    ),
    "hunyuan-moe": TurnFormat(
        ("<|startoftext|>", "<|extra_4|>"), ("<|startoftext|>", "<|extra_0|>"), ("", "<|eos|>")
    ),
    "gpt-oss": TurnFormat(
        ("<|start|>system<|message|>", "<|end|>"), ("<|start|>user<|message|>", "<|end|>"),
        ("<|start|>assistant<|message|>", "<|return|>"), "<|start|>assistant",
    ),
    "hunyuan-dense": TurnFormat(
        ("", "<｜hy_place▁holder▁no▁3｜>"), ("<｜hy_User｜>", "<｜hy_Assistant｜>"),
        ("<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>"),
    ),
    "hunyuan-vl": TurnFormat(
        ("", "<｜hy_place▁holder▁no▁3｜>"), ("", "<｜hy_User｜>"), ("", "<｜hy_Assistant｜>"),
        begins="<｜hy_begin▁of▁sentence｜>",
    ),
    "kimi-k2": TurnFormat(
        ("<|im_system|>system<|im_middle|>", "<|im_end|>"),
        ("<|im_user|>user<|im_middle|>", "<|im_end|>"),
        ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        "<|im_assistant|>assistant<|im_middle|>",
        tool=("<|im_system|>tool<|im_middle|>", "<|im_end|>"),
    ),
    "seed_oss": same(
        "<seed:bos>{role}\n", "<seed:eos>", "<seed:bos>assistant\n", trims=("assistant",)
    ),
    "grok-2": TurnFormat(
        ("System: ", "<|separator|>\n\n"), ("Human: ", "<|separator|>\n\n"),
        ("Assistant: ", "<|separator|>\n\n"), "Assistant:", trims=("system", "user"),
    ),
    "pangu-embedded": TurnFormat(
        ("[unused9]系统：", "[unused10]"), ("[unused9]用户：", "[unused10]"),
        ("[unused9]助手：", "[unused10]"), "[unused9]助手：",
        tool=("[unused9]工具：", "[unused10]"), no_system="[unused9]系统：[unused10]",
    ),
    "solar-open": same("<|begin|>{role}<|content|>", "<|end|>", "<|begin|>assistant"),
}  # fmt: skip

LOOP = """\
{{%- set texts = {texts} %}}
{{%- set ns = namespace(held='', is_open=false) %}}
{{{{- {begins} }}}}
{{%- if messages[0].role != 'system' %}}{{{{- {no_system} }}}}{{% endif %}}
{{%- for m in messages %}}
{{%- set role = m.role if m.role in texts else 'user' %}}
{{%- set text = m.content | trim if role in {trims} else m.content %}}
{body}
{{%- endfor %}}
{{%- if add_generation_prompt %}}{{{{- {asks} }}}}{{% endif %}}
"""
PLAIN = "{{- texts[role][0] + text + texts[role][1] }}"
MERGED = """\
{%- if role == 'system' %}{% set ns.held = ns.held + text + '\\n\\n' %}
{%- elif role == 'user' %}
{{- texts[role][0] + ns.held + text + texts[role][1] }}{% set ns.held = '' %}
{%- else %}{{- texts[role][0] + text + texts[role][1] }}{% endif %}"""
IN_ONE_FRAME = """\
{{- '' if ns.is_open and role == 'user' else texts[role][0] }}
{{- text + texts[role][1] }}{% set ns.is_open = role == 'system' %}"""


def template_of(name: str) -> str:
    """Returns the Jinja of a format."""
    form = TURN_FORMATS[name]
    around = {"system": form.system, "user": form.user, "assistant": form.assistant}
    around["tool"] = form.tool or form.user
    texts = {role: [spoken(text, role) for text in pair] for role, pair in around.items()}
    body = MERGED if form.merges_system else IN_ONE_FRAME if name in JOINED else PLAIN
    return LOOP.format(
        texts=repr(texts), begins=repr(form.begins), no_system=repr(form.no_system),
        trims=repr(list(form.trims)), body=body, asks=repr(form.asks),
    )  # fmt: skip


def spoken(text: str, role: str) -> str:
    """Returns the text with the role's name in it."""
    upper = "HUMAN" if role == "user" else role.upper()
    return text.replace(OTHER, role).replace(UPPER, upper)


TURN_TEMPLATES: dict[str, str] = {name: template_of(name) for name in TURN_FORMATS}

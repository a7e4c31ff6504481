"""What chat templates of DeepSeek and Kimi write of tools, calls and their results."""

from __future__ import annotations

_BEGIN = (
    "{{ bos_token }}{% if tools %}Tools: {{ tools | map(attribute='function') | list | tojson }}"
)
_DEEPSEEK = (
    _BEGIN + "{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>"
    "{{ m['content'] }}{% elif m['role'] == 'tool' %}<｜tool▁output▁begin｜>{{ m['content'] }}"
    "<｜tool▁output▁end｜>{% elif m['tool_calls'] %}<｜Assistant｜>{{ m['content'] or '' }}"
    "<｜tool▁calls▁begin｜>{% for tool in m['tool_calls'] %}CALL{% endfor %}<｜tool▁calls▁end｜>"
    "<｜end▁of▁sentence｜>{% else %}<｜Assistant｜>{{ m['content'] }}<｜end▁of▁sentence｜>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}"
)
OWN_TEMPLATES = {
    "DeepSeek-R1": _DEEPSEEK.replace(
        "CALL",
        "{% if not loop.first %}{{ '\\n' }}{% endif %}{{ '<｜tool▁call▁begin｜>' + tool['type'] + "
        "'<｜tool▁sep｜>' + tool['function']['name'] + '\\n```json\\n' }}"
        "{{ tool['function']['arguments'] | tojson }}{{ '\\n```<｜tool▁call▁end｜>' }}",
    )
    + "<｜Assistant｜><think>\n{% endif %}",
    "DeepSeek-V3.1": _DEEPSEEK.replace(
        "CALL",
        "<｜tool▁call▁begin｜>{{ tool['function']['name'] }}<｜tool▁sep｜>"
        "{{ tool['function']['arguments'] | tojson }}<｜tool▁call▁end｜>",
    )
    + "<｜Assistant｜></think>{% endif %}",
    "Kimi-K2": "{% if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>"
    "{% endif %}{% for m in messages %}{% if m['role'] == 'tool' %}<|im_system|>tool<|im_middle|>"
    "## Return of {{ m['tool_call_id'] }}\n{{ m['content'] }}{% else %}<|im_{{ m['role'] }}|>"
    "{{ m['role'] }}<|im_middle|>{{ m['content'] or '' }}{% endif %}{% if m['tool_calls'] %}"
    "<|tool_calls_section_begin|>{% for call in m['tool_calls'] %}<|tool_call_begin|>"
    "{{ call['id'] }}<|tool_call_argument_begin|>{{ call['function']['arguments'] | tojson }}"
    "<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}",
}

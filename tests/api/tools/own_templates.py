"""What chat templates of DeepSeek, Kimi, Command and Llama 4 write of tools, calls and results."""

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
_TURN, _END = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
_COMMAND = (
    "{{ bos_token }}" + _TURN + "<|SYSTEM_TOKEN|>{% if tools %}{{ tools | map(attribute='function')"
    " | list | tojson }}{% endif %}" + _END + "{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% if m.role == 'tool' %}" + _TURN + "<|SYSTEM_TOKEN|>"
    '<|START_TOOL_RESULT|>[{"tool_call_id": "{% for c in messages | selectattr("tool_calls") | '
    "map(attribute='tool_calls') | sum(start=[]) %}{% if c.id == m.tool_call_id %}"
    '{{ loop.index0 }}{% endif %}{% endfor %}", "results": {"0": {{ m.content | tojson }}}}]'
    "<|END_TOOL_RESULT|>" + _END + "{% elif m.role == 'assistant' %}" + _TURN + "<|CHATBOT_TOKEN|>"
    "{% if m.tool_calls %}<|START_THINKING|>{{ m.tool_plan }}<|END_THINKING|><|START_ACTION|>["
    "{% for c in m.tool_calls %}{{ '\n    ' }}"
    '{"tool_call_id": "{{ ns.n }}", "tool_name": "{{ c.function.name }}", "parameters": '
    "{{ c.function.arguments | tojson }}}{{ ',' if not loop.last }}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ '\n' }}]<|END_ACTION|>{% else %}<|START_RESPONSE|>{{ m.content }}"
    "<|END_RESPONSE|>{% endif %}" + _END + "{% else %}" + _TURN + "<|{{ m.role | upper }}_TOKEN|>"
    "{{ m.content }}" + _END + "{% endif %}{% endfor %}{% if add_generation_prompt %}" + _TURN +
    "<|CHATBOT_TOKEN|>THOUGHTS{% endif %}"
)  # fmt: skip
_LLAMA4 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}<|header_start|>ipython"
    "<|header_end|>\n\n{{ m.content | tojson }}{% else %}<|header_start|>{{ m.role }}<|header_end|>"
    "\n\n{% if tools and loop.first %}FORM{{ tools | tojson }}\n{% endif %}{% if m.tool_calls %}"
    "CALLS"
    "{% else %}{{ m.content }}{% endif %}{% endif %}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}"
)
OWN_TEMPLATES = {
    "Command-R7B": _COMMAND.replace("THOUGHTS", ""),
    "Command-A-Reasoning": "{% set reasoning = reasoning if reasoning is defined else true %}"
    + _COMMAND.replace(
        "THOUGHTS", "<|START_THINKING|>{% if not reasoning %}<|END_THINKING|>{% endif %}"
    ),
    "Llama-4": _LLAMA4.replace("FORM", "Environment: ipython\n").replace(
        "CALLS",
        "<|python_start|>{{ m.content or '' }}<|python_end|>{% for c in m.tool_calls %}"
        '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
        "{% endfor %}",
    ),
    "Llama-4-pythonic": _LLAMA4.replace(
        "FORM", "Use the form [func_name1(param1=value1), func_name2(...)] of\n"
    ).replace(
        "CALLS",
        "{{ m.content or '' }}[{% for c in m.tool_calls %}{{ c.function.name }}("
        "{% for key, value in c.function.arguments.items() %}{{ key }}={{ value | tojson }}"
        "{{ ', ' if not loop.last }}{% endfor %}){{ ', ' if not loop.last }}{% endfor %}]",
    ),
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

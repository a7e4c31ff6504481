"""Chat templates for models that come without one, by the names `--chat-template` takes.

Written for this project after the formats that the models' makers document."""

from __future__ import annotations

from dllama.chat.turn_formats import TURN_TEMPLATES

_CHATML = """\
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
"""

_LLAMA2 = """\
{%- set ns = namespace(system='') %}
{%- for m in messages %}
{%- if m.role == 'system' %}
{%- set ns.system = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}
{%- elif m.role == 'assistant' %}
{{- ' ' + m.content | trim + ' ' + eos_token }}
{%- else %}
{{- bos_token + '[INST] ' + ns.system + m.content | trim + ' [/INST]' }}
{%- set ns.system = '' %}
{%- endif %}
{%- endfor %}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for m in messages %}
{%- set role = 'ipython' if m.role == 'tool' else m.role %}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_MISTRAL = """\
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for m in messages %}
{%- if m.role == 'system' %}
{%- set ns.system = m.content + '\\n\\n' %}
{%- elif m.role == 'assistant' %}
{{- ' ' + m.content | trim + eos_token }}
{%- else %}
{{- '[INST] ' + ns.system + m.content + ' [/INST]' }}
{%- set ns.system = '' %}
{%- endif %}
{%- endfor %}
"""

_MISTRAL_V7 = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'system' %}
{{- '[SYSTEM_PROMPT] ' + m.content + '[/SYSTEM_PROMPT]' }}
{%- elif m.role == 'assistant' %}
{{- ' ' + m.content + eos_token }}
{%- else %}
{{- '[INST] ' + m.content + '[/INST]' }}
{%- endif %}
{%- endfor %}
"""

_GEMMA = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{{- raise_exception('There is no system role.') }}
{%- endif %}
{%- for m in messages %}
{%- set role = 'model' if m.role == 'assistant' else m.role %}
{{- '<start_of_turn>' + role + '\\n' + m.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{% endif %}
"""

_PHI3 = """\
{%- for m in messages %}
{{- '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{% endif %}
"""

_ZEPHYR = """\
{%- for m in messages %}
{{- '<|' + m.role + '|>\\n' + m.content + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{% endif %}
"""

_VICUNA = """\
{{- bos_token }}
{%- for m in messages %}
{%- if m.role == 'system' %}
{{- m.content + '\\n\\n' }}
{%- elif m.role == 'assistant' %}
{{- 'ASSISTANT: ' + m.content + eos_token + '\\n' }}
{%- else %}
{{- 'USER: ' + m.content + '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'ASSISTANT:' }}{% endif %}
"""

BUILTIN_TEMPLATES: dict[str, str] = {
    "chatml": _CHATML,
    "llama2": _LLAMA2,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
    "mistral-v7": _MISTRAL_V7,
    "gemma": _GEMMA,
    "phi3": _PHI3,
    "zephyr": _ZEPHYR,
    "vicuna": _VICUNA,
    **TURN_TEMPLATES,
}

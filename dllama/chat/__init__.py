"""Chat: messages checked, and rendered to a prompt by the model's template."""

from dllama.chat.chat_template import ChatTemplate
from dllama.chat.continuation import Cut
from dllama.chat.find_template import find_template
from dllama.chat.messages import check_messages
from dllama.chat.stop_texts import stop_texts, template_stop_ids

__all__ = [
    "ChatTemplate",
    "Cut",
    "check_messages",
    "find_template",
    "stop_texts",
    "template_stop_ids",
]

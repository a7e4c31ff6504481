"""Where a Markdown text that still grows can be cut: what lies before is shown once and for all.
No output."""

from __future__ import annotations

import re

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
ITEM = re.compile(r"([-*+]|\d{1,9}[.)])\s")


def complete_length(text: str) -> int:
    """Returns how much of a text are whole blocks that nothing after them changes: up to the last
    line that begins at the margin after an empty one, outside of code, and goes on with no list."""
    end = at = 0
    fence = ""
    was_empty = is_list = False
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        if fence:
            is_closing = mark is not None and mark[1].startswith(fence)
            if is_closing and not line.strip().strip(fence[0]):
                fence = ""
        else:
            is_whole = line.endswith("\n")  # else it may still become an item
            begins = is_whole and was_empty and bool(line.strip()) and not line[0].isspace()
            is_item = ITEM.match(line) is not None
            if begins and not (is_list and is_item):
                end, is_list = at, False
            is_list = is_list or is_item
            fence = mark[1] if mark is not None else ""
        was_empty = not line.strip() and not fence
        at += len(line)
    return end

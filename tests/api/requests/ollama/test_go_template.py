"""The part of Go's templates that Ollama's clients send."""

from __future__ import annotations

import pytest

from api.requests.ollama.go_template import render_go
from dllama.errors import RequestError

VALUES = {"System": "Be brief.", "Prompt": "Hi", "Suffix": ""}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("{{ .Prompt }}", "Hi"),
        ("{{.System}}|{{.Prompt}}", "Be brief.|Hi"),
        ("{{ if .Suffix }}S{{ else }}no{{ end }} {{ .Prompt }}", "no Hi"),
        ("{{ if .System }}S:{{ .System }}{{ end }}\n", "S:Be brief.\n"),
        ("{{ if .System }}{{ if .Suffix }}a{{ else }}b{{ end }}{{ else }}c{{ end }}", "b"),
        ("{{ if .Suffix }}{{ if .System }}a{{ else }}b{{ end }}{{ else }}c{{ end }}", "c"),
        ("a  {{- .Prompt -}}  b", "aHib"),
        ("a {{ .Prompt -}} \n b {{- /* none */ -}} c", "a Hibc"),
        ("{{ .Prompt }}{{ .Response }}<end>", "Hi"),
        ("{{ if .Suffix }}{{ .Response }}{{ end }}after", "after"),
        ("{ .Prompt } }}", "{ .Prompt } }}"),
    ],
)
def test_fields_and_conditions(source: str, text: str) -> None:
    assert render_go(source, VALUES, "template") == text


@pytest.mark.parametrize(
    "source",
    ["{{ .Messages }}", "{{ range .Tools }}{{ end }}", "{{ if eq .System 1 }}{{ end }}",
     "{{ Prompt }}", "{{ else }}", "{{ end }}", "{{ if .System }}", "{{ if }}{{ end }}",
     "{{ if .Suffix }}{{ .Unknown }}{{ end }}", "{{ .Prompt | upper }}"],
)  # fmt: skip
def test_other_actions_are_refused_by_name(source: str) -> None:
    with pytest.raises(RequestError, match="`template`") as refused:
        render_go(source, VALUES, "template")
    assert refused.value.param == "template"

"""Names of models as people write them; whatever comes out is safe to make paths and URLs of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.errors import ModelNameError
from dllama.hub.aliases import ALIASES
from dllama.hub.found import means
from dllama.hub.names import HubName, UrlName, is_safe_path, parse_name

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf.co/user/repo", HubName("user/repo")),
        ("huggingface.co/user/repo:Q4_K_M", HubName("user/repo", "Q4_K_M")),
        ("user/repo:q8_0", HubName("user/repo", "q8_0")),
        ("user/repo:latest", HubName("user/repo")),
        (" user/repo ", HubName("user/repo")),
        ("user/repo@v1.0:Q4_0", HubName("user/repo", "Q4_0", revision="v1.0")),
        ("hf.co/user/repo@v1/a.gguf", HubName("user/repo", file="a.gguf", revision="v1")),
        ("user/repo/sub/a.gguf", HubName("user/repo", file="sub/a.gguf")),
        ("author:repo:a.gguf", HubName("author/repo", file="a.gguf")),
        ("https://huggingface.co/u/r", HubName("u/r")),
        ("https://huggingface.co/u/r/tree/main", HubName("u/r")),
        ("https://hf.co/u/r/resolve/v1.0/a%20b.gguf?download=true",
         HubName("u/r", file="a b.gguf", revision="v1.0")),
        ("https://huggingface.co/u/r/blob/main/d/a.gguf", HubName("u/r", file="d/a.gguf")),
        ("http://mirror:8080/u/r/resolve/main/a.gguf", HubName("u/r", file="a.gguf")),
        ("mirror:8080/u/r:Q4_0", HubName("u/r", "Q4_0")),
        (f"https://h/a.gguf?x=1#sha256={DIGEST.upper()}", UrlName("https://h/a.gguf?x=1", DIGEST)),
        ("qwen3_0.6b_q40", HubName("b4rtaz/Qwen3-0.6B-Q40-Distributed-Llama")),
        ("Qwen3:0.6B", HubName("unsloth/Qwen3-0.6B-GGUF")),
    ],
)  # fmt: skip
def test_a_name_means(text: str, expected: HubName | UrlName) -> None:
    assert parse_name(text, "http://mirror:8080") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "qwen9:7b", "../../etc/passwd", "/etc/passwd", "user", "user/..", "../repo",
        "user/repo:", "user/repo:a/b", "user/repo@", "user/repo@..:Q4_0",
        "user/repo:..", "user/repo/../../x.gguf", "u\nser/repo",
        "user/repo/.hidden.gguf", "user/re\x00po", "us er/repo", "hf.co/repo", "hf.co/a/b/c:Q4",
        "https://hf.co/u/r/resolve/main/..%2f..%2fx.gguf", "https://h/..", "https://h/",
        "file:///etc/passwd", "ftp://h/a.gguf", "https://user:secret@h/a.gguf", "https://[/a.gguf",
        "https://h:99999/a.gguf", "a/b" * 400, "author:repo:../x.gguf",
    ],
)  # fmt: skip
def test_no_name_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ModelNameError):
        parse_name(text, "http://mirror:8080")


@settings(max_examples=60)
@given(st.text(max_size=20) | st.text("./\\a:-", max_size=20))
def test_no_name_leads_out_of_the_folder(text: str) -> None:
    try:
        name = parse_name(text)
    except ModelNameError:
        return
    root = Path("/models")
    place = root.joinpath(*name.folder).resolve()
    assert root in place.parents and len(place.relative_to(root).parts) == len(name.folder)
    if isinstance(name, HubName):
        assert parse_name(str(name)) == name, "its text means itself"
        assert not name.file or is_safe_path(name.file)


@pytest.mark.parametrize("path", ["a.gguf", "sub/dir/a-b_c.gguf", "ü ö.gguf"])
def test_paths_that_stay_inside(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/", "a//b", ".", "..", "a/../b", ".git/config", "a\\b", "C:/a", "a\x00", " a",
     "a\n", "/".join("abcdefghij"), "x" * 201, "dllama-model.json/.."],
)  # fmt: skip
def test_paths_that_do_not(path: str) -> None:
    assert not is_safe_path(path)


def test_every_short_name_is_a_name() -> None:
    for short, whole in ALIASES.items():
        assert short == short.lower() and whole not in ALIASES
        assert parse_name(short) == parse_name(whole)


def test_a_name_without_a_type_means_any_of_the_repository() -> None:
    whole = "hf.co/user/repo:Q4_0"
    assert means(parse_name("user/repo"), whole) and means(parse_name("User/repo:q4_0"), whole)
    assert not means(parse_name("user/repo:Q8_0"), whole)
    assert not means(parse_name("user/other"), whole)
    assert means(parse_name("https://h/a.gguf?token=x"), "https://h/a.gguf")

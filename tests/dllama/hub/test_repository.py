"""Which files of a repository are the model that a name means."""

from __future__ import annotations

import json

import pytest

from dllama.errors import HubError, NotOnHub
from dllama.hub.checksum import Checksum, Digest
from dllama.hub.hub_api import read_listing
from dllama.hub.names import HubName, parse_name
from dllama.hub.repository import RemoteFile, choose


def files(*paths: str) -> list[RemoteFile]:
    checksum = Checksum(Digest.SHA256, "0" * 64)
    return [RemoteFile(path, 10, f"https://hub/{path}", checksum) for path in paths]


def chosen(name: str, *paths: str) -> tuple[str, list[str], str]:
    asked = parse_name(name)
    assert isinstance(asked, HubName)
    found = choose(asked, "c0ffee", files(*paths))
    return found.name, [file.path for file in found.files], found.main


def test_a_type_of_gguf_files_is_chosen_by_its_word() -> None:
    paths = ("M-Q8_0.gguf", "M-Q4_K_M.gguf", "M.IQ2_XXS.gguf", "mmproj-M-f16.gguf", "README.md")
    expected = ("hf.co/u/r:IQ2_XXS", ["M.IQ2_XXS.gguf"], "M.IQ2_XXS.gguf")
    assert chosen("u/r:iq2_xxs", *paths) == expected
    assert chosen("u/r", *paths)[0] == "hf.co/u/r:Q4_K_M", "what most want"
    with pytest.raises(NotOnHub, match="it has Q4_K_M, Q8_0, IQ2_XXS"):
        chosen("u/r:Q5_0", *paths)
    with pytest.raises(NotOnHub):
        chosen("u/r:F16", *paths)  # a projector of images is no model


def test_a_split_model_has_all_its_parts_or_is_none() -> None:
    parts = [f"Q4_0/M-Q4_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    assert chosen("u/r:Q4_0", *parts)[1:] == (parts, parts[0])
    assert chosen(f"hf.co/u/r/{parts[1]}", *parts)[1] == parts
    for lacking in (parts[:2], parts[1:]):
        with pytest.raises(NotOnHub):
            chosen("u/r:Q4_0", *lacking)
    with pytest.raises(NotOnHub, match="a part of the model"):
        chosen(f"hf.co/u/r/{parts[1]}", *parts[:2])


def test_models_of_one_type_go_by_their_files_names() -> None:
    paths = ("Small-Q4_0.gguf", "Large-Q4_0.gguf", "plain.gguf")
    assert chosen("u/r:Large-Q4_0", *paths)[1] == ["Large-Q4_0.gguf"]
    assert chosen("u/r:plain", *paths)[1] == ["plain.gguf"]
    assert chosen("u/r/plain.gguf", *paths) == (
        "hf.co/u/r/plain.gguf", ["plain.gguf"], "plain.gguf",
    )  # fmt: skip


def test_a_checkpoint_comes_with_its_tokenizer_and_nothing_else() -> None:
    index = "model.safetensors.index.json"
    own = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
           index, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
           "tiktoken.model"]  # fmt: skip
    more = ["README.md", "consolidated.safetensors", "pytorch_model.bin", "onnx/model.onnx",
            "original/model.safetensors"]  # fmt: skip
    name, paths, main = chosen("u/r", *own, *more)
    assert (name, main) == ("hf.co/u/r:safetensors", "") and sorted(paths) == sorted(own)
    with pytest.raises(NotOnHub, match="in safetensors files alone"):
        chosen("u/r:Q4_0", *own)
    with pytest.raises(NotOnHub, match="no files that can be run"):
        chosen("u/r", "config.json", "pytorch_model.bin")


def test_a_tokenizer_of_distributed_llama_lies_beside_its_model_under_its_name() -> None:
    found = choose(HubName("u/r"), "", files("model_x.m", "tokenizer_y.t"))
    assert [file.path for file in found.files] == ["model_x.m", "model_x.t"]
    assert found.files[1].url.endswith("tokenizer_y.t") and found.name == "hf.co/u/r:m"
    with pytest.raises(NotOnHub, match="has 2 "):
        choose(HubName("u/r"), "", files("a.m", "b.m", "c.t"))


def test_the_id_is_that_of_the_content() -> None:
    one = choose(HubName("u/r"), "commit1", files("a-Q4_0.gguf"))
    again = choose(HubName("u/r"), "commit2", files("a-Q4_0.gguf", "README.md"))
    assert one.id == again.id and len(one.id) == 12
    changed = [RemoteFile("a-Q4_0.gguf", 10, "", Checksum(Digest.SHA256, "1" * 64))]
    assert choose(HubName("u/r"), "commit1", changed).id != one.id


SHA = "a" * 64
GOOD = {"rfilename": "a.gguf", "size": 9, "blobId": "b" * 40, "lfs": {"sha256": SHA, "size": 9}}


@pytest.mark.parametrize(
    "row",
    [
        GOOD | {"rfilename": "../a.gguf"},
        GOOD | {"rfilename": "/a.gguf"},
        GOOD | {"rfilename": 7},
        GOOD | {"lfs": {"sha256": "x", "size": 9}},
        GOOD | {"lfs": {"sha256": SHA, "size": -1}},
        GOOD | {"lfs": {"sha256": SHA, "size": 2**60}},
        GOOD | {"lfs": {"sha256": SHA, "size": "9"}},
        {"rfilename": "a.json", "size": 9},
        {"rfilename": "a.json", "size": 9, "blobId": "zz"},
        "a.gguf",
        None,
    ],
)
def test_a_listing_is_read_with_suspicion(row: object) -> None:
    body = json.dumps({"sha": "c0ffee", "siblings": [row, GOOD]}).encode()
    commit, found = read_listing(body, HubName("u/r"), "https://hub")
    assert commit == "c0ffee" and [file.path for file in found] == ["a.gguf"]
    assert found[0].url == "https://hub/u/r/resolve/c0ffee/a.gguf"
    assert str(found[0].checksum) == f"sha256:{SHA}"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"sha": "../x", "siblings": []}', b"[" * 10_000, b"\xff"]
)
def test_what_is_no_listing_is_told(body: bytes) -> None:
    with pytest.raises(HubError, match="is no hub"):
        read_listing(body, HubName("u/r"), "https://hub")

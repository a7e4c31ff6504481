"""A tiktoken.model, as Kimi-K2 has it: the tokens that tiktoken makes of its ranks with the rule
for words of the models' makers, and refusals of what is damaged or another model's."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats import open_model
from dllama.formats.checkpoint.folder import RANKS, tokenizer_folder
from dllama.formats.checkpoint.tiktoken_ranks import N_SPECIAL, merges_of, read_ranks
from dllama.formats.checkpoint.tokenizer_files import count_tokens
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.formats.writing.convert import write_gguf
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.byte_alphabet import from_alphabet
from dllama.tokenizer.vocabulary import TokenType
from tests.checkpoints import write_checkpoint
from tests.toy_models import DEEPSEEK

# The rule as the makers' tokenization_kimi.py has it, in its own spelling.
WORDS = "|".join(
    (
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
TEXTS = (
    "Hello world", " Hello  world ", "", " ", "   ", "the cat's 1234 hats\n\n\tit'S WE'LL",
    "é日本🦙\x00", "中文和English混合，123456。\n「引号」的字",
    "字かなカナ漢字한국어 mixed字HTMLParser", "a<|im_end|>b<|tool_call_begin|>[BOS]",
    "<|reserved_token_577|>", "\n", "e\u0301é ﬁ ǅ ʰa", "x" * 50,
    "def f(x):\n    return x  # ok\r\n\r\n", "㐀𠀀々〆〇 ·٣٤٥ ½", "aaaaaaaaa ababababa   \n   b",
)  # fmt: skip
CORPUS = [
    *TEXTS, "the quick brown fox's den isn't where we'll hide in 2024 or 1999",
    "他们在中国的北京大学学习中文和数学", "import numpy as np\nfor i in range(10):\n    print(i)",
]  # fmt: skip
NAMED = {"[BOS]": True, "[EOS]": True, "<|im_end|>": True, "<|tool_call_begin|>": False}


@cache
def trained(corpus: tuple[str, ...], size: int) -> dict[bytes, int]:
    """Ranks of tokens that byte-level BPE learns from texts."""
    library = Library(BPE())
    library.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=size, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(corpus, trainer)
    vocab = library.get_vocab()
    return {from_alphabet(text): i for i, text in enumerate(sorted(vocab, key=vocab.__getitem__))}


def ranks() -> dict[bytes, int]:
    return trained(tuple(CORPUS * 3), 500)


def write_ranks(folder: Path, found: Mapping[bytes, int], code: str = "tokenization_kimi") -> None:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in found.items())
    (folder / RANKS).write_text("".join(lines))
    named = {
        str(len(found) + i): {"content": text, "special": special}
        for i, (text, special) in enumerate(NAMED.items())
    }
    said = {
        "added_tokens_decoder": named,
        "auto_map": {"AutoTokenizer": [f"{code}.TikTokenTokenizer", None]},
        "bos_token": "[BOS]", "eos_token": "[EOS]", "chat_template": "{{ messages }}",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    end = len(found) + list(NAMED).index("<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))


def oracle(found: Mapping[bytes, int]) -> Any:
    """tiktoken's encoding of the ranks and the special tokens."""
    tiktoken = pytest.importorskip("tiktoken")
    special = {f"<|reserved_token_{i}|>": i for i in range(len(found), len(found) + N_SPECIAL)}
    for i, text in enumerate(NAMED):
        del special[f"<|reserved_token_{len(found) + i}|>"]
        special[text] = len(found) + i
    return tiktoken.Encoding(
        name="kimi", pat_str=WORDS, mergeable_ranks=dict(found), special_tokens=special
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kimi")
    write_ranks(path, ranks())
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> Tokenizer:
    return Tokenizer.from_gguf_metadata(tokenizer_metadata(folder))


def test_a_folder_gives_tiktokens_tokens(ours: Tokenizer) -> None:
    theirs = oracle(ranks())
    for text in TEXTS:
        expected = theirs.encode(text, allowed_special="all")
        assert ours.encode(text, parse_special=True) == expected, text
        assert ours.encode_prompt(text) == expected, "no BOS is added"
        assert ours.decode(expected) == text


@given(st.text(max_size=60) | st.text("aAbé字 か1'sS\n\r\t", max_size=60))
def test_any_text_gives_tiktokens_tokens(ours: Tokenizer, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # halves of surrogate pairs
    theirs = oracle(ranks())
    assert ours.encode_inside(text) == theirs.encode(text, disallowed_special=()), text


def test_one_way_to_make_a_token_is_as_good_as_another(tmp_path: Path) -> None:
    """Tokens of few letters, which can be made in many ways; merging only the pairs that a token
    was learned from gives other tokens."""
    draw = random.Random(3)
    words = ["".join(draw.choices("abc", k=draw.randint(3, 40))) for _ in range(300)]
    found = trained(tuple(words), 900)
    assert len(merges_of(found)) > 1.5 * (len(found) - 256)
    write_ranks(tmp_path, found)
    tokenizer, theirs = Tokenizer.from_gguf_metadata(tokenizer_metadata(tmp_path)), oracle(found)
    for _ in range(2000):
        text = "".join(draw.choices("abc", k=draw.randint(1, 60)))
        assert tokenizer.encode(text) == theirs.encode(text), text


def test_special_tokens_have_their_names_types_and_ends(folder: Path, ours: Tokenizer) -> None:
    n = len(ranks())
    assert ours.vocab_size == count_tokens(folder) == n + N_SPECIAL
    assert list(ours.token_texts[n : n + len(NAMED)]) == list(NAMED)
    assert ours.token_texts[-1] == f"<|reserved_token_{n + N_SPECIAL - 1}|>"
    assert [ours.is_control(n + i) for i in range(4)] == list(NAMED.values())
    assert ours.is_special(n + 3) and ours.is_control(n + 4)
    assert {ours.bos_text, ours.eos_text} == {"[BOS]", "[EOS]"} and not ours.add_bos
    assert {n + 1, n + 2} <= ours.eog_ids
    types = tokenizer_metadata(folder)["tokenizer.ggml.token_type"]
    assert set(types[:n].tolist()) == {TokenType.NORMAL}  # type: ignore[index]
    assert ours.chat_templates == {"default": "{{ messages }}"}


def test_a_folder_of_kimi_k2_is_a_model_as_it_is(tmp_path: Path) -> None:
    """And a GGUF file that is made of it has the same tokens."""
    n = len(ranks()) + N_SPECIAL
    model = write_checkpoint(
        tmp_path / "toy", arch="deepseek2", model_type="kimi_k2", vocab_size=n, tokenizer="none",
        fields=DEEPSEEK | {"n_expert_groups": 1, "n_active_groups": 1},
    )  # fmt: skip
    write_ranks(model, ranks())
    with closing(open_model(model)) as source:
        assert source.config.vocab_size == source.config.tokenizer_size == n
        write_gguf(source, metadata_of(str(model), None), tmp_path / "toy.gguf")
    written, theirs = load_tokenizer(str(tmp_path / "toy.gguf"), None), oracle(ranks())
    for text in TEXTS:
        expected = theirs.encode(text, allowed_special="all")
        assert load_tokenizer(str(model), None).encode(text, parse_special=True) == expected
        assert written.encode(text, parse_special=True) == expected


def test_it_is_named_by_its_folder_or_file(folder: Path) -> None:
    assert tokenizer_folder(folder) == tokenizer_folder(folder / RANKS) == folder
    assert read_ranks(folder / RANKS) == ranks()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (r"line 501 of it is b'!! 3'", "!! 3"),
        (r"line 501 of it is b'YWFhYWE= x'", "YWFhYWE= x"),
        (r"line 501 of it is b'YWFhYWE='", "YWFhYWE="),
        (r"line 501 of it is b' 500'", " 500"),
        (r"the token in line 501 is empty, too long or there twice", f"{'YWFh' * 200} 500"),
        (r"the token in line 501 is empty, too long or there twice", "YQ== 500"),
        (r"the token in line 501 is empty, too long or there twice", "YWFhYWFhYWFhYWFh -1"),
        (r"its 501 ranks are not 0 to 500", "YWFhYWFhYWFhYWFh 900"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, said: str, line: str) -> None:
    write_ranks(tmp_path, ranks())
    with (tmp_path / RANKS).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ModelFileError, match=said):
        tokenizer_metadata(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write_ranks(tmp_path, {bytes([b]): b for b in range(255)})
    with pytest.raises(ModelFileError, match="not every byte is a token"):
        tokenizer_metadata(tmp_path)
    write_ranks(tmp_path, ranks())
    path = tmp_path / "tokenizer_config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in whole.items() if k != "added_tokens_decoder"}))
    with pytest.raises(ModelFileError, match="has no added_tokens_decoder"):
        tokenizer_metadata(tmp_path)
    for token in ({"5": {"content": "x"}}, {"700": {}}, {"-1": {"content": "x"}}, {"700": 3}):
        path.write_text(json.dumps({**whole, "added_tokens_decoder": token}))
        with pytest.raises(ModelFileError, match="has no text, or the id of a rank"):
            tokenizer_metadata(tmp_path)
    path.unlink()
    with pytest.raises(ModelFileError, match=r"has no tokenizer_config\.json"):
        tokenizer_metadata(tmp_path)


def test_ranks_of_other_models_are_refused(tmp_path: Path) -> None:
    """The file does not say how words are cut."""
    for code in ("tokenization_qwen", ""):
        write_ranks(tmp_path, ranks(), code)
        with pytest.raises(TokenizerError, match="whose rule for words this version does not know"):
            tokenizer_metadata(tmp_path)
        assert count_tokens(tmp_path) is None
    write_ranks(tmp_path, ranks(), "moonshotai/Moonlight--tokenization_moonshot")
    assert count_tokens(tmp_path) == 500 + N_SPECIAL

"""Decoding as tokens come: whole characters only, and the same text for any division."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.errors import TokenizerError
from dllama.tokenizer import Tokenizer
from tests.dllama.tokenizer.vocabularies import bpe_metadata, real_tokenizer, spm_metadata

SPM = Tokenizer.from_gguf_metadata(spm_metadata({"▁": -1.0, "a": -2.0, "▁a": -0.5, "é": -3.0}))
BPE = Tokenizer.from_gguf_metadata(bpe_metadata([("a", "b"), ("Ġ", "a")], {"<|x|>": 3}))


@settings(max_examples=300)
@given(
    data=st.data(),
    tokenizer=st.sampled_from([SPM, BPE]),
    skip_special=st.booleans(),
    is_continuation=st.booleans(),
)
def test_any_division_gives_the_text_of_the_whole(
    data: st.DataObject, tokenizer: Tokenizer, skip_special: bool, is_continuation: bool
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    decoder = tokenizer.decoder(skip_special, is_continuation=is_continuation)
    spans = zip([0, *cuts], [*cuts, len(ids)], strict=True)
    pieces = [decoder.push(ids[start:end]) for start, end in spans] + [decoder.flush()]
    whole = tokenizer.decode(ids, skip_special=skip_special, is_continuation=is_continuation)
    assert "".join(pieces) == whole


@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_half_character_is_ever_given_out(text: str) -> None:
    for tokenizer in (SPM, BPE):
        decoder = tokenizer.decoder(is_continuation=False)
        # SentencePiece writes a space as this character, and so takes the one for the other.
        expected = text.replace("▁", " ") if tokenizer is SPM else text
        seen = ""
        for token in tokenizer.encode(text):
            seen += decoder.push([token])
            assert expected.startswith(seen)
        assert seen == expected and decoder.flush() == ""


def test_unfinished_and_invalid_bytes_become_replacement_characters() -> None:
    byte = {b: 3 + b for b in range(256)}
    decoder = SPM.decoder()
    assert decoder.push([byte[0xE2], byte[0x82]]) == ""
    assert decoder.push([byte[0xAC]]) == "€"
    assert decoder.push([byte[0xFF]]) == "\ufffd"
    assert decoder.push([byte[0xF0], byte[0x9F]]) == ""
    assert decoder.flush() == "\ufffd"


def test_the_first_space_of_an_answer_is_kept_and_that_of_a_text_is_not() -> None:
    ids = SPM.encode("a a")
    assert SPM.decode(ids) == "a a"
    assert SPM.decoder().push(ids) == " a a"
    assert SPM.decode(ids, is_continuation=True) == " a a"
    assert SPM.decode(SPM.encode("  a")) == "  a"


def test_text_within_a_text_has_no_space_before_it() -> None:
    assert SPM.decode(SPM.encode_inside("a"), is_continuation=True) == "a"
    assert SPM.decode(SPM.encode("a"), is_continuation=True) == " a"


def test_control_tokens_are_left_out_on_demand() -> None:
    ids = BPE.encode("a<|x|>b", parse_special=True)
    assert BPE.decode(ids) == "a<|x|>b"
    assert BPE.decode(ids, skip_special=True) == "ab"
    assert BPE.decoder().push(ids) == "ab"
    assert BPE.decoder(skip_special=False).push(ids) == "a<|x|>b"
    assert BPE.decoder(kept=[ids[1]]).push(ids) == "a<|x|>b"  # a mark that somebody reads


def test_emoji_of_several_tokens() -> None:
    tokenizer = real_tokenizer("llama-bpe")
    text = "👨‍👩‍👧 Cửa Việt 🦙"
    decoder = tokenizer.decoder()
    pieces = [decoder.push([token]) for token in tokenizer.encode(text)]
    assert "" in pieces and "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + decoder.flush() == text


@pytest.mark.parametrize("token", [-1, 10**9])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    for call in (SPM.token_bytes, SPM.is_special, SPM.is_control, lambda i: SPM.decode([i])):
        with pytest.raises(TokenizerError, match="There is no token"):
            call(token)

"""A tokenizer.json: its parts with their types checked, and which of the two kinds of vocabulary it
is. Knows no GGUF.

Source: the serialization of the `tokenizers` library. A part that cuts or changes text in a way
that this version does not do is refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dllama.errors import TokenizerError
from dllama.formats.checkpoint.folder import TOKENIZER, read_json

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How the library's ByteLevel cuts words by itself (`use_regex`)."""
_METASPACE = {"always": "unless-space", "first": "at-start", "never": ""}
"""The schemes of a Metaspace, as values of PrefixRule; "" for none."""

_INSTEAD = "give another one with --tokenizer (a GGUF file of the model, or a .t file)"


@dataclass(frozen=True, slots=True)
class AddedToken:
    id: int
    text: str
    is_special: bool
    strips_right: bool


@dataclass(frozen=True, slots=True)
class TokenizerJson:
    """The parts of a tokenizer. `patterns` cut words one after another; they are None for a
    SentencePiece vocabulary (`has_bytes`), where `prefix` says where a text is given a space before
    it (a name of PrefixRule, None: nowhere)."""

    path: Path
    vocab: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    added: Sequence[AddedToken]
    unk: str | None
    ignore_merges: bool
    is_nfc: bool
    patterns: tuple[str, ...] | None
    drops_rest: bool  # what is between the matches of an expression is left out
    prefix: str | None
    before: Sequence[str]  # tokens put before a text
    after: Sequence[str]  # and after it

    @property
    def has_bytes(self) -> bool:
        return self.patterns is None


def read_tokenizer_json(folder: Path) -> TokenizerJson:
    """Returns the tokenizer in a folder. Raises TokenizerError where it is of a kind that this
    version does not know; ModelFileError where the file is damaged."""
    path = folder / TOKENIZER
    if not path.exists():
        raise TokenizerError(
            f"{folder} has no {TOKENIZER}, and no tiktoken.model; make one with the tokenizer's "
            f"`save_pretrained` of transformers, or {_INSTEAD}."
        )
    return _Reader(path, read_json(path)).read()


class _Reader:
    """Takes a tokenizer.json apart."""

    def __init__(self, path: Path, said: Mapping[str, object]) -> None:
        self._path, self._said = path, said
        self._drops_rest = False

    def read(self) -> TokenizerJson:
        model = self._part("model")
        if model.get("type", "BPE") != "BPE" or "merges" not in model:
            raise self._unknown(f"its model is {model.get('type')!r}, and BPE is known")
        vocab = self._vocab(model)
        has_bytes = model.get("byte_fallback") is True
        is_nfc, marks, prefixes = self._normalizers()
        patterns, metaspace = self._pre_tokenizers(marks)
        if has_bytes == (patterns is not None) or (marks and not has_bytes):
            raise self._unknown(
                "it is neither byte-level BPE nor SentencePiece's (byte_fallback with a Metaspace, "
                "or with normalizers that write spaces as ▁)"
            )
        if has_bytes and not (marks or metaspace is not None):
            raise self._unknown("nothing in it says how spaces become ▁")
        before, after = self._template()
        unk = model.get("unk_token")
        return TokenizerJson(
            path=self._path,
            vocab=vocab,
            merges=self._merges(model),
            added=self._added(),
            unk=unk if isinstance(unk, str) else None,
            ignore_merges=model.get("ignore_merges") is True,
            is_nfc=is_nfc,
            patterns=patterns,
            drops_rest=self._drops_rest,
            prefix="always" if prefixes else metaspace or None,
            before=before,
            after=after,
        )

    # ---- the model
    def _vocab(self, model: Mapping[str, object]) -> dict[str, int]:
        vocab = model.get("vocab")
        most = 1 << 24
        if not isinstance(vocab, dict) or not vocab:
            raise self._broken("it has no vocabulary")
        if not all(type(i) is int and 0 <= i < most for i in vocab.values()):
            raise self._broken("a token of its vocabulary has no sound id")
        if len(set(vocab.values())) < len(vocab):
            raise self._broken("two of its tokens have the same id")
        return vocab

    def _merges(self, model: Mapping[str, object]) -> list[tuple[str, str]]:
        merges = model["merges"]
        if not isinstance(merges, list):
            raise self._broken("its merges are no list")
        found: list[tuple[str, str]] = []
        for merge in merges:
            pair = merge.split(" ") if isinstance(merge, str) else merge
            if not isinstance(pair, list) or len(pair) != 2:
                raise self._broken(
                    f"a merge of it is {str(merge)[:80]!r}, and two texts are expected"
                )
            if not (isinstance(pair[0], str) and isinstance(pair[1], str)):
                raise self._broken("a merge of it holds more than texts")
            found.append((pair[0], pair[1]))
        return found

    def _added(self) -> list[AddedToken]:
        tokens = self._said.get("added_tokens") or []
        if not isinstance(tokens, list):
            raise self._broken("its added_tokens are no list")
        found = []
        for token in tokens:
            text, i = (token.get("content"), token.get("id")) if isinstance(token, dict) else (0, 0)
            if not isinstance(text, str) or type(i) is not int or not 0 <= i < 1 << 24:
                raise self._broken("one of its added_tokens has no sound id and content")
            is_special, strips = token.get("special") is True, token.get("rstrip") is True
            found.append(AddedToken(i, text, is_special, strips))
        return found

    # ---- what happens to a text before
    def _normalizers(self) -> tuple[bool, bool, bool]:
        """Returns whether letters and accents are composed, spaces become ▁, and one is put before
        a text."""
        is_nfc = marks = prefixes = False
        for part in self._steps("normalizer", "normalizers"):
            match part.get("type"):
                case "NFC":
                    is_nfc = True
                case "Prepend" if part.get("prepend") == "▁":
                    prefixes = True
                case "Replace" if part.get("pattern") == {"String": " "}:
                    marks = part.get("content") == "▁"
                case _:
                    raise self._unknown(f"its normalizer is {str(part)[:200]}")
        return is_nfc, marks, prefixes

    def _pre_tokenizers(self, marks: bool) -> tuple[tuple[str, ...] | None, str | None]:
        """Returns the expressions that cut words, None without ByteLevel; and where a Metaspace
        puts a space before a text, "" for nowhere, None without one. Where normalizers have made
        ▁ of all spaces (`marks`) nothing is cut at spaces."""
        patterns: list[str] = []
        is_byte_level, metaspace = False, None
        for part in self._steps("pre_tokenizer", "pretokenizers"):
            if is_byte_level:
                raise self._unknown(
                    f"its pre_tokenizer goes on behind ByteLevel: {str(part)[:200]}"
                )
            match part.get("type"):
                case "Split" if marks and part.get("pattern") == {"String": " "}:
                    pass  # Gemma's
                case "Split" if part.get("behavior") == "Isolated" and not part.get("invert"):
                    patterns.append(self._pattern(part))
                case "Split" if part.get("behavior") == "Removed" and part.get("invert") is True:
                    patterns.append(self._pattern(part))  # the matches are all that is left
                    self._drops_rest = True
                case "Digits":
                    single = part.get("individual_digits") is True
                    patterns.append(r"\p{N}" if single else r"\p{N}+")
                case "ByteLevel" if not part.get("add_prefix_space"):
                    is_byte_level = True
                    patterns += [GPT2_WORDS] if part.get("use_regex", True) else []
                case "Metaspace" if part.get("replacement") == "▁":
                    metaspace = self._prefixes(part)
                case _:
                    raise self._unknown(f"its pre_tokenizer is {str(part)[:200]}")
        if not is_byte_level and patterns:
            raise self._unknown("it cuts words by expressions and is not byte-level")
        return (tuple(patterns) if is_byte_level else None), metaspace

    def _prefixes(self, part: Mapping[str, object]) -> str:
        scheme = part.get("prepend_scheme")
        if scheme is None:  # as older files say it
            scheme = "always" if part.get("add_prefix_space", True) is True else "never"
        if isinstance(scheme, str) and scheme in _METASPACE:
            return _METASPACE[scheme]
        raise self._unknown(f"its Metaspace has the prepend_scheme {str(scheme)[:40]!r}")

    def _pattern(self, part: Mapping[str, object]) -> str:
        match part.get("pattern"):
            case {"Regex": str(regex)}:
                return regex
            case {"String": str(text)}:
                return re.escape(text)
            case other:
                raise self._unknown(f"it cuts words at {str(other)[:80]}")

    def _template(self) -> tuple[list[str], list[str]]:
        """Returns the texts of the tokens that are put before and after a text."""
        before: list[str] = []
        after: list[str] = []
        for part in self._steps("post_processor", "processors"):
            if part.get("type") == "ByteLevel":
                continue
            single = part.get("single")
            if part.get("type") != "TemplateProcessing" or not isinstance(single, list):
                raise self._unknown(f"its post_processor is {str(part)[:200]}")
            side = before
            for item in single:
                special = item.get("SpecialToken") if isinstance(item, dict) else None
                if isinstance(special, dict):
                    side.append(str(special.get("id")))
                else:
                    side = after
        return before, after

    # ---- parts
    def _part(self, key: str) -> Mapping[str, object]:
        part = self._said.get(key)
        if not isinstance(part, dict):
            raise self._broken(f"it has no {key}")
        return part

    def _steps(self, key: str, inner: str) -> list[Mapping[str, object]]:
        """Returns the parts of a sequence, or the one part that there is."""
        part = self._said.get(key)
        if part is None:
            return []
        if not isinstance(part, dict):
            raise self._broken(f"its {key} is no object")
        if part.get("type") != "Sequence":
            return [part]
        steps = part.get(inner)
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise self._broken(f"its {key} has no sound list of {inner}")
        return steps

    def _unknown(self, what: str) -> TokenizerError:
        return TokenizerError(
            f"{self._path} is a tokenizer of a kind that this version does not know: {what}; "
            f"{_INSTEAD}."
        )

    def _broken(self, what: str) -> TokenizerError:
        return TokenizerError(f"{self._path} is damaged: {what}. Download it again, or {_INSTEAD}.")

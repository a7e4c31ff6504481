"""The vocabulary of a `.t` file. The file holds pieces and scores but neither merges nor the rule
by which words are cut nor types of tokens; these are told from the pieces themselves, so that ids
come out as from a GGUF file of the same model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dllama.errors import TokenizerError
from dllama.tokenizer.byte_alphabet import to_alphabet
from dllama.tokenizer.pretokenizers import find_pre_tokenizer
from dllama.tokenizer.t_file import TFile
from dllama.tokenizer.vocabulary import BYTE_TEXTS, SPACE_MARK, Kind, TokenType, Vocabulary

_ALL_BYTES = [bytes([b]) for b in range(256)]
_BYTE_NAMES = list(BYTE_TEXTS)
# Special tokens that are spelled like this are no text; <think> or <tool_call> are.
_CONTROL = re.compile(r"<\|.*\|>|<｜.*｜>|\[/?[A-Z_]+\]|</?s>|<(bos|eos|pad|unk)>", re.DOTALL)


def vocabulary_of_t_file(contents: TFile) -> Vocabulary:
    """The vocabulary of a `.t` file: SentencePiece where it has the run of 256 byte pieces that
    SentencePiece puts in one place, byte-level BPE otherwise."""
    first_byte = _find_byte_run(contents.tokens)
    if first_byte is not None:
        return _spm_vocabulary(contents, first_byte)
    return _bpe_vocabulary(contents)


def _find_byte_run(tokens: list[bytes]) -> int | None:
    """Returns where the bytes 0 to 255 stand in a row; byte-level BPE begins with b"!", not with
    0."""
    for i, token in enumerate(tokens[: len(tokens) - 255]):
        if token == b"\0" and tokens[i : i + 256] == _ALL_BYTES:
            return i
    return None


def _spm_vocabulary(contents: TFile, first_byte: int) -> Vocabulary:
    texts = [_text(token).replace(" ", SPACE_MARK) for token in contents.tokens]
    types = [int(TokenType.NORMAL)] * len(texts)
    texts[first_byte : first_byte + 256] = _BYTE_NAMES
    types[first_byte : first_byte + 256] = [int(TokenType.BYTE)] * 256
    named = {*contents.eos_ids, *([] if contents.bos_id is None else [contents.bos_id])}
    for i, text in enumerate(texts):
        if types[i] == TokenType.NORMAL and (i in named or _CONTROL.fullmatch(text)):
            types[i] = int(TokenType.CONTROL)
    unk_id = texts.index("<unk>") if "<unk>" in texts else None
    if unk_id is not None:
        types[unk_id] = int(TokenType.UNKNOWN)
    return Vocabulary(
        kind=Kind.SPM,
        tokens=texts,
        types=types,
        scores=contents.scores,
        bos_id=contents.bos_id,
        eos_id=contents.eos_ids[0] if contents.eos_ids else None,
        unk_id=unk_id,
        extra_end_ids=frozenset(contents.eos_ids),
        add_bos=contents.add_bos,
        add_space_prefix=True,
        chat_templates=_templates(contents),
    )


def _bpe_vocabulary(contents: TFile) -> Vocabulary:
    n_regular = _count_regular(contents)
    regular = [to_alphabet(token) for token in contents.tokens[:n_regular]]
    special = [_text(token) for token in contents.tokens[n_regular:]]
    ids = {piece: i for i, piece in reversed(list(enumerate(regular)))}
    if not all(to_alphabet(b) in ids for b in _ALL_BYTES):
        raise TokenizerError(
            "The .t file's tokenizer is neither SentencePiece nor byte-level BPE: it lacks pieces "
            "for single bytes. Give a GGUF file of the model with --tokenizer."
        )
    by_rank = sorted(range(n_regular), key=lambda i: (-contents.scores[i], i))
    order = [regular[i] for i in by_rank]
    # Llama 3's pieces include numbers of three digits, those of Qwen, cut digit by digit, do not.
    is_llama3 = "123" in ids
    named = {*contents.eos_ids, contents.bos_id}
    types = [int(TokenType.NORMAL)] * n_regular
    for i, text in enumerate(special, start=n_regular):
        control = i in named or _CONTROL.fullmatch(text)
        types.append(int(TokenType.CONTROL if control else TokenType.USER_DEFINED))
    return Vocabulary(
        kind=Kind.BPE,
        tokens=regular + special,
        types=types,
        merges=all_splits(order, ids) if is_llama3 else trained_pairs(order, ids),
        words=find_pre_tokenizer("llama-bpe" if is_llama3 else "qwen2"),
        bos_id=contents.bos_id,
        eos_id=contents.eos_ids[0] if contents.eos_ids else None,
        extra_end_ids=frozenset(contents.eos_ids),
        add_bos=contents.add_bos,
        chat_templates=_templates(contents),
    )


def _count_regular(contents: TFile) -> int:
    """Tokens before BOS are pieces, BOS and those after it are special: distributed-llama's rule.
    A file that names no BOS has its ends there."""
    marks = [*contents.eos_ids, *([] if contents.bos_id is None else [contents.bos_id])]
    if contents.bos_id is not None:
        return contents.bos_id
    return min(marks, default=len(contents.tokens))


def _text(token: bytes) -> str:
    return token.decode("utf-8", "replace")


def _templates(contents: TFile) -> dict[str, str]:
    return {"default": contents.chat_template} if contents.chat_template else {}


def all_splits(pieces: Sequence[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, in the order of what they make: tiktoken's rule,
    which merges any neighbours whose joined text is a piece. `pieces` come in order of rank."""
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        pairs = [
            (ids[piece[:at]], ids[piece[at:]], at)
            for at in range(1, len(piece))
            if piece[:at] in ids and piece[at:] in ids
        ]
        merges += [(piece[:at], piece[at:]) for _, _, at in sorted(pairs)]
    return merges


def trained_pairs(pieces: Sequence[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The one pair that made each piece when the vocabulary was trained: what the merges before it
    make of the piece's own letters. Pieces that are not made of two are left out."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, piece in enumerate(pieces):
        pair = _only_split(piece, ids) or _last_two(piece, ranks)
        if pair:
            ranks.setdefault(pair, rank)
    return list(ranks)


def _only_split(piece: str, ids: Mapping[str, int]) -> tuple[str, str] | None:
    """The pair where only one is possible."""
    found: tuple[str, str] | None = None
    for at in range(1, len(piece)):
        if piece[:at] in ids and piece[at:] in ids:
            if found:
                return None
            found = piece[:at], piece[at:]
    return found


def _last_two(piece: str, ranks: Mapping[tuple[str, str], int]) -> tuple[str, str] | None:
    """The two parts that the merges known so far leave of a piece, if they leave two."""
    parts = list(piece)
    while len(parts) > 2:
        best, best_at = len(ranks) + len(piece), -1
        for at in range(len(parts) - 1):
            rank = ranks.get((parts[at], parts[at + 1]))
            if rank is not None and (best_at < 0 or rank < best):
                best, best_at = rank, at
        if best_at < 0:
            return None
        parts[best_at : best_at + 2] = [parts[best_at] + parts[best_at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None

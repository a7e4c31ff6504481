"""A tiktoken.model: the tokenizer of Kimi-K2 and Moonlight, as the parts of a tokenizer.json.

The file has a line for each token: its bytes in base64, and its rank, which is its id. Of two
neighbours in a word those are merged first whose joined bytes have the lowest rank, and a word
that is a token is taken whole. Special tokens follow the ranks; tokenizer_config.json names them.

Source: tiktoken's file format and algorithm, and tokenization_kimi.py of the models' makers, which
has the rule for words and the number of special tokens. The file itself tells neither, so that
ranks of other models are refused."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from dllama.errors import ModelFileError, TokenizerError
from dllama.formats.checkpoint.folder import RANKS, TOKENIZER_CONFIG, read_bytes, read_json
from dllama.formats.checkpoint.tokenizer_json import AddedToken, TokenizerJson

CODE = ("tokenization_kimi", "tokenization_moonshot")
"""The modules of the makers' code whose rule for words is known."""
RULE = "kimi-k2"
N_SPECIAL = 256  # after the ranks, whether they have names or not
MAX_TOKENS = 1 << 20
MAX_TOKEN_BYTES = 512

Ranks = Mapping[bytes, int]


def read_ranks_tokenizer(folder: Path) -> TokenizerJson:
    """Returns the tokenizer in a folder with ranks. Raises TokenizerError where they are of a model
    that this version does not know; ModelFileError where a file is damaged."""
    # Imported here, as an engine opens models and seldom reads text.
    from dllama.tokenizer.byte_alphabet import to_alphabet
    from dllama.tokenizer.pretokenizers import find_pre_tokenizer

    path = folder / RANKS
    ranks, added = _read_both(folder)
    pieces = {raw: to_alphabet(raw) for raw in ranks}
    rule = find_pre_tokenizer(RULE)
    return TokenizerJson(
        path=path,
        vocab={pieces[raw]: rank for raw, rank in ranks.items()},
        merges=[(pieces[left], pieces[right]) for left, right in merges_of(ranks)],
        added=added,
        unk=None,
        ignore_merges=True,
        is_nfc=rule.is_nfc,
        patterns=rule.patterns,
        drops_rest=False,
        prefix=None,
        before=(),
        after=(),
    )


def count_ranked_tokens(folder: Path) -> int:
    """Returns the number of tokens of the tokenizer in a folder with ranks. Raises as
    `read_ranks_tokenizer` does."""
    _, added = _read_both(folder)
    return 1 + max(token.id for token in added)


def merges_of(ranks: Ranks) -> list[tuple[bytes, bytes]]:
    """Returns all pairs of tokens that make a token, in the order in which they are merged: one
    way to make a token is as good as another, which pairs of a single way per token do not say."""
    merges: list[tuple[bytes, bytes]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = ((token[:at], token[at:]) for at in range(1, len(token)))
        found = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(found, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def _read_both(folder: Path) -> tuple[Ranks, list[AddedToken]]:
    said = read_json(folder / TOKENIZER_CONFIG)
    _check_code(folder, said)
    ranks = read_ranks(folder / RANKS)
    return ranks, _added(folder / TOKENIZER_CONFIG, said, len(ranks))


def _check_code(folder: Path, said: Mapping[str, object]) -> None:
    """Raises TokenizerError unless the code that reads the ranks is known."""
    auto_map = said.get("auto_map")
    named = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else None
    name = named[0] if isinstance(named, list) and named else named
    module = str(name or "").rpartition("--")[2].partition(".")[0]
    if module not in CODE:
        raise TokenizerError(
            f"{folder / RANKS} has ranks of tokens, and {TOKENIZER_CONFIG} names the code "
            f"{str(name)[:100]!r} for them, whose rule for words this version does not know; known "
            f"are {' and '.join(CODE)}. Give another tokenizer with --tokenizer (a GGUF file of "
            f"the model, or a folder with tokenizer.json)."
        )


def read_ranks(path: Path) -> Ranks:
    """Returns the tokens of a file by their ranks, which are 0 and up without a gap. Raises
    ModelFileError."""
    ranks: dict[bytes, int] = {}
    for i, line in enumerate(read_bytes(path).split(b"\n")):
        if not line.strip():
            continue
        text, _, number = line.strip().partition(b" ")
        try:
            token, rank = base64.b64decode(text, validate=True), int(number)
        except ValueError:
            raise _broken(path, f"line {i + 1} of it is {line[:60]!r}") from None
        if not 0 < len(token) <= MAX_TOKEN_BYTES or not number.isdigit() or token in ranks:
            raise _broken(path, f"the token in line {i + 1} is empty, too long or there twice")
        ranks[token] = rank
    n = len(ranks)
    if n > MAX_TOKENS or sorted(ranks.values()) != list(range(n)):
        raise _broken(path, f"its {n} ranks are not 0 to {n - 1}")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise _broken(path, "not every byte is a token of it")
    return ranks


def _added(path: Path, said: Mapping[str, object], n_ranks: int) -> list[AddedToken]:
    """Returns the special tokens; those that the file does not name are reserved."""
    named = said.get("added_tokens_decoder")
    if not isinstance(named, dict):
        raise _broken(path, "it has no added_tokens_decoder")
    added = {
        i: AddedToken(i, f"<|reserved_token_{i}|>", True, False)
        for i in range(n_ranks, n_ranks + N_SPECIAL)
    }
    for key, token in named.items():
        i = int(key) if key.isdecimal() and len(key) < 9 else -1
        text = token.get("content") if isinstance(token, dict) else None
        if not isinstance(text, str) or not text or not n_ranks <= i < MAX_TOKENS:
            raise _broken(path, f"the special token {key[:40]!r} has no text, or the id of a rank")
        added[i] = AddedToken(i, text, token.get("special") is not False, False)
    return [added[i] for i in sorted(added)]


def _broken(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path} is no sound file of a tokenizer: {what}, where a token in base64 and its rank are "
        f"expected. Download it again."
        if path.name == RANKS
        else f"{path} is damaged: {what}. Download it again."
    )

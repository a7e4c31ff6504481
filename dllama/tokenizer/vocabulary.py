"""The parts of a tokenizer, whatever file it came from: pieces, their types, and flags.

Knows no file format and no algorithm; readers make a Vocabulary, engines use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from dllama.errors import TokenizerError
from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer

SPACE_MARK = "▁"  # U+2581, how SentencePiece writes a space inside a piece
BYTE_TEXTS = {f"<0x{b:02X}>": b for b in range(256)}  # how SentencePiece writes byte tokens


class Kind(StrEnum):
    """The algorithm that turns text into pieces."""

    SPM = "spm"  # SentencePiece: merge by score, bytes as a fall-back
    BPE = "bpe"  # byte-level BPE: split by regex, then merge by rank


class PrefixRule(StrEnum):
    """Where a text is given a space before it, if its vocabulary has one put there."""

    ALWAYS = "always"  # at its start and after each special token
    UNLESS_SPACE = "unless-space"  # the same, but not before a space
    AT_START = "at-start"  # at its start only, and not before a space


class TokenType(IntEnum):
    """Types of tokens, numbered as in GGUF files."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


# Pieces that merging may make. Control tokens are left out, so text can never become one.
MERGEABLE = frozenset(
    {TokenType.UNDEFINED, TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED}
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything a tokenizer needs to know.

    `tokens` are texts as in GGUF files: BPE pieces in GPT-2's byte alphabet, SPM pieces with "▁"
    for a space and "<0xNN>" for a byte, special tokens as they are read by people. `scores`
    matter to SPM only, `merges` and `words` (the rule by which text is cut) to BPE only.
    `extra_end_ids` end a generation besides eos. After a token of `strips_right`, white space in
    the text is dropped. `chat_templates` are Jinja sources by name; "default" is the usual one.
    """

    kind: Kind
    tokens: Sequence[str]
    types: Sequence[int]
    scores: Sequence[float] = ()
    merges: Sequence[tuple[str, str]] = ()
    words: PreTokenizer = PRE_TOKENIZERS["default"]
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    extra_end_ids: frozenset[int] = frozenset()
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False
    prefix_rule: PrefixRule = PrefixRule.ALWAYS
    strips_right: frozenset[int] = frozenset()
    chat_templates: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises TokenizerError where parts do not fit each other."""
        n = len(self.tokens)
        if n == 0:
            raise TokenizerError("The tokenizer has no tokens; give another one with --tokenizer.")
        self._check_length("token types", len(self.types))
        if self.kind is Kind.SPM:
            self._check_length("scores", len(self.scores))
        if self.add_bos and self.bos_id is None:
            raise TokenizerError(
                "The tokenizer asks for a BOS token before every text but names none; the file "
                "is inconsistent. Convert it again, or give another one with --tokenizer."
            )
        if self.add_eos and self.eos_id is None:
            raise TokenizerError(
                "The tokenizer asks for an EOS token after every text but names none; the file "
                "is inconsistent. Convert it again, or give another one with --tokenizer."
            )

    def _check_length(self, what: str, n: int) -> None:
        if n != len(self.tokens):
            raise TokenizerError(
                f"The tokenizer has {len(self.tokens)} tokens but {n} {what}; both must be equal. "
                f"The file is corrupt: convert it again, or give another one with --tokenizer."
            )

    def mergeable(self) -> dict[str, int]:
        """Piece to id of all that merging may make; of equal pieces the first one counts."""
        return {
            self.tokens[i]: i
            for i in range(len(self.tokens) - 1, -1, -1)
            if self.types[i] in MERGEABLE
        }

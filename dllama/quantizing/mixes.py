"""The mixes of types by llama.cpp's names: the type of most matrices, and which get more bits.

The rules are those of llama-quantize without an importance matrix (llama.cpp, src/llama-quant.cpp).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from dllama.qtypes import BLOCK, QType


class Role(Enum):
    """What a matrix is, as far as mixes care."""

    OUTPUT = "output"
    EMBEDDING = "embedding"
    V = "v"  # also where it is joined with Q and K
    K = "k"
    ATTENTION_OUTPUT = "attention output"
    DOWN = "down"
    OTHER = "other"


ROLES = {
    "attn_qkv.weight": Role.V,
    "attn_kv_b.weight": Role.V,
    "attn_v.weight": Role.V,
    "attn_k.weight": Role.K,
    "attn_output.weight": Role.ATTENTION_OUTPUT,
    "ffn_down": Role.DOWN,
}
"""By a part of a tensor's name in GGUF files."""


def role_of(name: str) -> Role:
    """Returns the role of a tensor by its name in GGUF files."""
    if name == "output.weight":
        return Role.OUTPUT
    if name == "token_embd.weight":
        return Role.EMBEDDING
    return next((role for part, role in ROLES.items() if part in name), Role.OTHER)


class Place(NamedTuple):
    """Where a matrix stands: its number among the `n` of its role, and what the model is."""

    number: int
    n: int
    n_queries_per_key: int
    n_experts: int
    is_70b: bool

    @property
    def is_early(self) -> bool:
        return self.number < self.n // 8

    @property
    def is_sensitive(self) -> bool:
        """Whether it is in the first or the last eighth, or a third one between them."""
        first = self.n // 8
        return self.is_early or self.number >= 7 * self.n // 8 or (self.number - first) % 3 == 2


Rule = Callable[[Place], QType | None]  # None: the type of most matrices


class Mix(NamedTuple):
    """A mix: its number in general.file_type, the type of most matrices, and rules by role."""

    file_type: int
    qtype: QType
    rules: dict[Role, Rule] = {}  # noqa: RUF012  (read only)
    of_eight_experts: QType | None = None  # of the attention's output in models of eight experts


def _always(qtype: QType) -> Rule:
    return lambda place: qtype


def _sensitive(qtype: QType) -> Rule:
    return lambda place: qtype if place.is_sensitive else None


def _early(qtype: QType) -> Rule:
    return lambda place: qtype if place.is_early else None


def _first(count: int, qtype: QType, other: QType | None = None) -> Rule:
    return lambda place: qtype if place.number < count else other


def _shared_keys(qtype: QType, other: QType | None = None) -> Rule:
    """Where four query heads or more share a key head, which makes the matrix small."""
    return lambda place: qtype if place.n_queries_per_key >= 4 else other


def _down_of_q3_k_m(place: Place) -> QType:
    return QType.Q5_K if place.number < place.n // 16 else QType.Q4_K


_IQ4: dict[Role, Rule] = {Role.V: _shared_keys(QType.Q5_K), Role.DOWN: _early(QType.Q5_K)}

MIXES: dict[str, Mix] = {
    "F32": Mix(0, QType.F32),
    "F16": Mix(1, QType.F16),
    "BF16": Mix(32, QType.BF16),
    "Q8_0": Mix(7, QType.Q8_0),
    "Q4_0": Mix(2, QType.Q4_0),
    "Q4_1": Mix(3, QType.Q4_1),
    "Q5_0": Mix(8, QType.Q5_0),
    "Q5_1": Mix(9, QType.Q5_1),
    "Q2_K": Mix(
        10, QType.Q2_K,
        {
            Role.V: _shared_keys(QType.Q4_K, QType.Q3_K),
            Role.DOWN: _always(QType.Q3_K),
            Role.ATTENTION_OUTPUT: _always(QType.Q3_K),
        },
        QType.Q5_K,
    ),
    "Q3_K_S": Mix(11, QType.Q3_K, {}, QType.Q5_K),
    "Q3_K_M": Mix(
        12, QType.Q3_K,
        {
            Role.V: _first(2, QType.Q5_K, QType.Q4_K),
            Role.DOWN: _down_of_q3_k_m,
            Role.ATTENTION_OUTPUT: _always(QType.Q4_K),
        },
        QType.Q5_K,
    ),
    "Q3_K_L": Mix(
        13, QType.Q3_K,
        {
            Role.V: _always(QType.Q5_K),
            Role.DOWN: _always(QType.Q5_K),
            Role.ATTENTION_OUTPUT: _always(QType.Q5_K),
        },
    ),
    "Q4_K_S": Mix(
        14, QType.Q4_K,
        {Role.V: _first(4, QType.Q5_K), Role.DOWN: _early(QType.Q5_K)},
        QType.Q5_K,
    ),
    "Q4_K_M": Mix(
        15, QType.Q4_K,
        {
            Role.V: _sensitive(QType.Q6_K),
            Role.DOWN: _sensitive(QType.Q6_K),
        },
        QType.Q5_K,
    ),
    "Q5_K_S": Mix(16, QType.Q5_K),
    "Q5_K_M": Mix(
        17, QType.Q5_K,
        {
            Role.V: _sensitive(QType.Q6_K),
            Role.DOWN: _sensitive(QType.Q6_K),
        },
    ),
    "Q6_K": Mix(18, QType.Q6_K),
    "IQ4_NL": Mix(25, QType.IQ4_NL, _IQ4, QType.Q5_K),
    "IQ4_XS": Mix(30, QType.IQ4_XS, _IQ4, QType.Q5_K),
    "MXFP4_MOE": Mix(38, QType.MXFP4),
}  # fmt: skip

ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

_MORE_BITS = {QType.Q3_K: QType.Q5_K, QType.Q4_K: QType.Q5_K}  # of V in models of 70B
_EIGHT = 8  # experts: Mixtral, whose attention is small beside them


def mixed_type(mix: Mix, role: Role, place: Place, *, is_of_experts: bool) -> QType:
    """Returns the type that a mix gives a matrix of a layer."""
    if mix.qtype is QType.MXFP4:
        return QType.MXFP4 if is_of_experts else QType.Q8_0
    rule = mix.rules.get(role)
    qtype = (rule(place) if rule is not None else None) or mix.qtype
    if place.n_experts == _EIGHT:
        if role in (Role.V, Role.K):
            return QType.Q8_0
        if role is Role.ATTENTION_OUTPUT:
            return mix.of_eight_experts or mix.qtype
    if place.is_70b and role is Role.V:
        return _MORE_BITS.get(qtype, qtype)
    return qtype


def head_type(mix: Mix, cols: int) -> QType:
    """Returns the type of the output matrix, which chooses every token, or of the embedding that
    is used as one."""
    block = BLOCK[mix.qtype].values
    is_wide = mix.qtype in (QType.Q8_0, QType.MXFP4) or cols % block != 0
    return QType.Q8_0 if is_wide else QType.Q6_K

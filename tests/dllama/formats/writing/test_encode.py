"""Encoders and decoders, bit for bit against the gguf library."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.writers.decode import DECODERS, decode
from dllama.formats.writing.encode import ENCODABLE, encode
from dllama.qtypes import COMPUTABLE, QType

# float16 scales must not overflow, or ours and theirs differ only in their warnings
# and the inverse of one must not either: what becomes of infinity as a byte is nowhere said
FLOATS = st.floats(-60000.0, 60000.0, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)

EXACT = [QType.F32, QType.F16, QType.BF16, QType.Q8_0, QType.Q4_0, QType.Q4_1, QType.Q5_0,
         QType.Q5_1]  # fmt: skip


def theirs(values: np.ndarray, qtype: QType) -> np.ndarray:
    raw = gguf.quantize(values, gguf.GGMLQuantizationType(qtype))
    return np.ascontiguousarray(raw).view(np.uint8)


def test_what_can_be_written_can_be_read_and_computed() -> None:
    assert set(DECODERS) <= set(ENCODABLE) < COMPUTABLE


@pytest.mark.parametrize("qtype", EXACT)
@pytest.mark.parametrize("scale", [1e-6, 0.02, 1.0, 300.0])
def test_random_rows_encode_as_the_gguf_library_does(qtype: QType, scale: float) -> None:
    rng = np.random.default_rng(7)
    values = (scale * rng.standard_normal((64, 96))).astype(np.float32)
    values[3, 32:64] = 0  # a block of zeros
    values[5, :32] = np.float32(scale)  # all alike
    raw = encode(values, qtype)
    assert np.array_equal(raw, theirs(values, qtype))
    back = gguf.dequantize(raw, gguf.GGMLQuantizationType(qtype))
    if qtype in DECODERS:
        assert np.array_equal(decode(raw, qtype), back)


@settings(max_examples=60)
@given(
    qtype=st.sampled_from(EXACT),
    values=hnp.arrays(np.float32, (2, 32), elements=FLOATS),
)
def test_any_rows_encode_as_the_gguf_library_does(qtype: QType, values: np.ndarray) -> None:
    with np.errstate(all="ignore"):  # the library divides by scales of 0
        assert np.array_equal(encode(values, qtype), theirs(values, qtype))


@settings(max_examples=60)
@given(
    qtype=st.sampled_from([QType.Q4_0, QType.Q8_0]),
    values=hnp.arrays(np.float32, (1, 64), elements=st.floats(-100, 100, width=16)),
)
def test_decoding_comes_back_within_half_a_step(qtype: QType, values: np.ndarray) -> None:
    back = decode(encode(values, qtype), qtype)
    largest = np.abs(values).reshape(-1, 32).max(axis=1).repeat(32)
    step = largest / (7 if qtype is QType.Q4_0 else 127)
    slack = 2.0**-25 * 128 + largest / 1000  # the scale is rounded to float16
    assert (np.abs(back - values).reshape(-1) <= step + slack).all()


def test_bf16_rounds_to_even_and_keeps_nan() -> None:
    bits = np.array([[0x3F808000, 0x3F818000, 0x3F808001, 0x7F800001, 0xFF800000]], np.uint32)
    words = encode(bits.view(np.float32), QType.BF16).view("<u2")[0]
    assert words.tolist()[:3] == [0x3F80, 0x3F82, 0x3F81]
    assert words[3] & 0x7FFF > 0x7F80 and words[4] == 0xFF80


def test_wrong_sizes_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match="does not end at a block of Q4_0"):
        encode(np.zeros((1, 33), np.float32), QType.Q4_0)
    with pytest.raises(ValueError, match="no encoder for IQ2_S"):
        encode(np.zeros((1, 256), np.float32), QType.IQ2_S)
    with pytest.raises(ValueError, match="no decoder for Q6_K"):
        decode(np.zeros((1, 210), np.uint8), QType.Q6_K)

"""Small sums: addition and subtraction up to 20 or so, the times tables, halves, comparisons."""

from __future__ import annotations

import random

from examples.demo_model.data.dialogue import Exchange
from examples.demo_model.data.world import NUMBERS

ADD = ("what is {a} + {b}", "{a} + {b}", "{a}+{b}", "{a} + {b} =", "how much is {a} + {b}",
       "what is {a} plus {b}", "how much is {a} plus {b}", "{a} plus {b}", "add {a} and {b}",
       "what's {a} + {b}", "calculate {a} + {b}", "what is the sum of {a} and {b}")  # fmt: skip
SUBTRACT = ("what is {a} - {b}", "{a} - {b}", "{a}-{b}", "{a} - {b} =", "how much is {a} - {b}",
            "what is {a} minus {b}", "how much is {a} minus {b}", "{a} minus {b}",
            "what's {a} - {b}", "calculate {a} - {b}", "take {b} from {a}")  # fmt: skip
TIMES = ("what is {a} * {b}", "{a} * {b}", "{a} x {b}", "{a} * {b} =", "how much is {a} times {b}",
         "what is {a} times {b}", "{a} times {b}", "multiply {a} by {b}", "what is {a} x {b}",
         "what's {a} times {b}")  # fmt: skip


def sum_exchange(rng: random.Random) -> Exchange:
    """A sum and its result."""
    return rng.choice((_add, _add, _add, _subtract, _subtract, _times, _times, _half, _compare))(
        rng
    )


def _spelled(rng: random.Random, n: int) -> str:
    return NUMBERS[n - 1] if 0 < n <= len(NUMBERS) and rng.random() < 0.12 else str(n)


def _asked(rng: random.Random, frames: tuple[str, ...], a: int, b: int) -> str:
    return rng.choice(frames).format(a=_spelled(rng, a), b=_spelled(rng, b))


def _add(rng: random.Random) -> Exchange:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return Exchange(_asked(rng, ADD, a, b), f"{a} + {b} = {a + b}.", f"{a + b}")


def _subtract(rng: random.Random) -> Exchange:
    a, b = sorted((rng.randint(0, 20), rng.randint(0, 20)), reverse=True)
    return Exchange(_asked(rng, SUBTRACT, a, b), f"{a} - {b} = {a - b}.", f"{a - b}")


def _times(rng: random.Random) -> Exchange:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return Exchange(_asked(rng, TIMES, a, b), f"{a} * {b} = {a * b}.", f"{a * b}")


def _half(rng: random.Random) -> Exchange:
    n = rng.randint(1, 20)
    if rng.random() < 0.5:
        asked = rng.choice(("what is half of {}", "half of {}", "divide {} by 2", "{} / 2"))
        return Exchange(asked.format(2 * n), f"Half of {2 * n} is {n}.", f"{n}")
    asked = rng.choice(("what is twice {}", "double {}", "what is the double of {}"))
    return Exchange(asked.format(n), f"Twice {n} is {2 * n}.", f"{2 * n}")


def _compare(rng: random.Random) -> Exchange:
    a, b = rng.sample(range(100), 2)
    asked = rng.choice(("what is larger, {} or {}", "which is larger, {} or {}",
                        "is {} or {} larger", "which number is bigger, {} or {}"))  # fmt: skip
    most, least = max(a, b), min(a, b)
    return Exchange(asked.format(a, b), f"{most} is larger than {least}.", f"{most}")

"""How often what a model thinks so likely comes true. A small model that is half sure may be right
nearly always, where the large one takes the likeliest token, or seldom, where it draws by chance.
"""

from __future__ import annotations

N_CLASSES = 8  # of likelihoods, each as wide as the others
FIRST_WEIGHT = 3  # tokens that what is thought at first weighs as much as
MAX_WEIGHT = 30  # and what was learned from any number of them: texts change


class HitRates:
    """Running estimates for one sequence; at first what the model says."""

    def __init__(self) -> None:
        self._rates = [(i + 0.5) / N_CLASSES for i in range(N_CLASSES)]
        self._weights = [FIRST_WEIGHT] * N_CLASSES

    def of(self, likelihood: float) -> float:
        """The chance that a token of this likelihood is the one that comes."""
        return self._rates[_class_of(likelihood)]

    def learn(self, likelihood: float, is_right: bool) -> None:
        """A token of this likelihood was the one that came, or was not."""
        i = _class_of(likelihood)
        self._weights[i] = min(self._weights[i] + 1, MAX_WEIGHT)
        self._rates[i] += (is_right - self._rates[i]) / self._weights[i]


def _class_of(likelihood: float) -> int:
    return min(int(likelihood * N_CLASSES), N_CLASSES - 1)

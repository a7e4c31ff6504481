"""A comparison of two models as lines for people, in the order of llama-perplexity."""

from __future__ import annotations

from collections.abc import Iterator

from dllama.divergence.comparison import Comparison, Measured

NAMES = {100.0: "largest", 50.0: "median", 0.0: "least"}


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Yields the lines."""
    yield f"{found.n_tokens} tokens of {found.n_windows} windows"
    yield from (
        _line("perplexity", found.perplexity),
        _line("perplexity of the base", found.base_perplexity),
        f"{'correlation':26}{100 * found.correlation:12.2f} %",
        _line("ln of the ratio", found.log_ratio),
        _line("ratio", found.ratio),
        _line("difference", found.difference),
        "",
        _line("KL divergence", found.divergence),
    )
    for rank, value in found.divergences.items():
        yield f"{'  ' + _name(rank):26}{value:12.6f}"
    yield ""
    yield _line("change of p", found.change, percent=True)
    for rank, value in found.changes.items():
        yield f"{'  ' + _name(rank):26}{100 * value:12.3f} %"
    yield _line("RMS change of p", found.rms_change, percent=True)
    yield _line("same most likely token", found.same_top, percent=True)


def _name(rank: float) -> str:
    return NAMES.get(rank, f"{rank:g} %")


def _line(name: str, of: Measured, *, percent: bool = False) -> str:
    if percent:
        return f"{name:26}{100 * of.value:12.3f} ± {100 * of.error:.3f} %"
    return f"{name:26}{of.value:12.6f} ± {of.error:.6f}"

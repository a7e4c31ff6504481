"""What a rank is said to need before it is loaded, against what its process takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dllama.config import FULL_ATTENTION, LayerAttention
from dllama.qtypes import QType
from tests.toy_models import write_toy

LOAD = """
import gc
import sys
from dataclasses import replace
from pathlib import Path
from dllama.formats import open_model
from dllama.runtime.local_runner import LocalRunner
from dllama.sharding.memory import LOGIT_ROWS, PROCESS_BYTES, memory_needed
from dllama.sharding.plan import plan_for
from dllama.windows import ring_of_pages
from kernels.kernel import on_compile
from tests.local_model import make_step

def taken():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

N_PAGES, ROWS = 60, 512

def run(source):
    # Reads prompts into all pages, and makes whole rows of logits.
    runner = LocalRunner.load(source, n_pages=N_PAGES, max_step_tokens=ROWS, n_threads=1)
    pages = ring_of_pages(N_PAGES, runner.n_window_pages or N_PAGES)[None]
    for start in range(0, N_PAGES * 32, ROWS):
        n = min(ROWS, N_PAGES * 32 - start)
        step = make_step([(0, [i % 300 for i in range(n)], start)], pages_each=N_PAGES)
        runner.run(replace(step, window_pages=pages))
    step = make_step([(0, list(range(LOGIT_ROWS)), 0)], pages_each=N_PAGES, every_row=True)
    runner.run(replace(step, window_pages=pages))
    return runner

small, compiled = open_model(sys.argv[2]), []
with on_compile(compiled.append):
    run(small).close()  # the process itself: imports, kernels
gc.collect()
source = open_model(sys.argv[1])
[shard] = plan_for(source.config, source.tensors, [1.0])
needed = memory_needed(
    source.config, source.tensors, shard, n_pages=N_PAGES, max_step_tokens=ROWS
) - PROCESS_BYTES
before = taken()
with on_compile(compiled.append):
    runner = run(source)
print(needed, taken() - before, len(compiled))
runner.close()
"""


WINDOWS = {
    "gemma3": (LayerAttention(window=256),) * 5 + (FULL_ATTENTION,),
    "gpt-oss": (LayerAttention(window=128), FULL_ATTENTION) * 3,
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
@pytest.mark.parametrize("arch", ["llama", "qwen3moe", "gemma3", "gpt-oss", "deepseek2"])
def test_a_rank_takes_what_it_was_said_to_need(tmp_path: Path, arch: str) -> None:
    """But for the process itself, which is measured once for all models: docs/log.md. Of models
    with windows, the pages of both kinds of layers are all used."""
    model, small = tmp_path / "toy.gguf", tmp_path / "small.gguf"
    windows = {"attention_layers": WINDOWS[arch]} if arch in WINDOWS else {}
    sizes: dict[str, int] = {"n_layers": 6, "n_heads": 8, "n_kv_heads": 8, "max_seq_len": 4096}
    write_toy(
        model, arch=arch, qtype=QType.Q8_0, dim=768, hidden_dim=2048, vocab_size=8192,
        **sizes, **windows,
    )  # fmt: skip
    write_toy(
        small, arch=arch, qtype=QType.Q8_0, dim=64, hidden_dim=128, vocab_size=512,
        **sizes, **windows,
    )  # fmt: skip
    found = measured(model, small)
    if found[2]:  # the compiler takes memory too, once
        found = measured(model, small)
    needed, taken, n_compiled = found
    assert not n_compiled
    assert needed == pytest.approx(taken, rel=0.05), found


def measured(model: Path, small: Path) -> tuple[int, ...]:
    """The bytes needed, the bytes taken, and the number of kernels that had to be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(model), str(small)], cwd=Path(__file__).parents[3],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(map(int, done.stdout.split()))

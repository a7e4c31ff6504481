"""llama-server's flags that have no part of their own here: scripts that start it start dllama-root
too. What cannot change an answer is taken, and told in one line; what would change it is refused in
a sentence, unless its value is the one that changes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dllama.cli.flags.parser import FOREIGN_DEST
from dllama.errors import ConfigError

ANY = None  # as `neutral`: every value changes nothing


class Foreign(NamedTuple):
    """Flags of llama-server, all of one kind. `n_values` follow each; `neutral` are the values that
    change nothing, ANY for all; `why` says why it has no effect, or what to do instead."""

    names: str
    n_values: int | str
    neutral: tuple[str, ...] | None
    why: str


FAST = "the speed only, which is found by itself here"
GPU = "where a GPU computes, and this program computes on processors"
MEMORY = "how memory is held: weights are packed once, and pages come and go by themselves"
GUESS = "how tokens are guessed, which changes no answer; see --speculate and --draft-model"
PAGE = "llama-server's page, which is not here"
LOGS = "how its log looks; see --log-level and --log-format"
IMAGES = "images and sound, which no model it runs takes"
LOAD = "where a model is downloaded; name it with --model or -hf, and a token with HF_TOKEN"
TOOLS = "tools that the server runs itself; clients run their tools"
ROPE = "the rotations that a model was trained with; they come from its file"

FOREIGN = (
    Foreign("-tb --threads-batch --prio --prio-batch --poll --poll-batch --cpu-strict "
            "--cpu-strict-batch -C --cpu-mask -Cr --cpu-range -Cb --cpu-mask-batch -Crb "
            "--cpu-range-batch --threads-http --numa -ub --ubatch-size", 1, ANY, FAST),
    Foreign("-cb --cont-batching -nocb --no-cont-batching --perf --no-perf --warmup --no-warmup "
            "--repack -nr --no-repack --no-host --op-offload --no-op-offload -bs "
            "--backend-sampling --backend_sampling --reuse-port", 0, ANY, FAST),
    Foreign("-fa --flash-attn", "?", ANY, FAST),
    Foreign("-ngl --gpu-layers --n-gpu-layers -sm --split-mode -ts --tensor-split -mg --main-gpu "
            "-dev --device -ot --override-tensor -ncmoe --n-cpu-moe -ncffn --n-cpu-ffn -fit --fit "
            "-fitt --fit-target -fitc --fit-ctx", 1, ANY, GPU),
    Foreign("-cmoe --cpu-moe -kvo --kv-offload -nkvo --no-kv-offload", 0, ANY, GPU),
    Foreign("--mlock --mmap --no-mmap -dio --direct-io --no-direct-io --check-tensors --swa-full "
            "--cache-idle-slots --no-cache-idle-slots", 0, ANY, MEMORY),
    Foreign("-dt --defrag-thold -lm --load-mode -lzm --lazy-mode -ctxcp --ctx-checkpoints "
            "--swa-checkpoints -cms --checkpoint-min-step -cram --cache-ram --cache-reuse -sps "
            "--slot-prompt-similarity", 1, ANY, MEMORY),
    Foreign("--spec-type -lcs --lookup-cache-static -lcd --lookup-cache-dynamic --spec-draft-n-min "
            "--spec-draft-p-min --spec-draft-p-split --draft-p-min --draft-p-split --draft-min "
            "--draft-n-min -td --threads-draft -tbd --threads-batch-draft -ngld --gpu-layers-draft "
            "--n-gpu-layers-draft -devd --device-draft -ctkd --cache-type-k-draft -ctvd "
            "--cache-type-v-draft --spec-ngram-mod-n-min --spec-ngram-mod-n-max "
            "--spec-ngram-mod-n-match -cd --ctx-size-draft", 1, ANY, GUESS),
    Foreign("--spec-default", 0, ANY, GUESS),
    Foreign("--log-file --log-colors --log-prompts-dir -lv --verbosity --log-verbosity", 1, ANY,
            LOGS),
    Foreign("--reasoning-preserve --no-reasoning-preserve", 0, ANY,
            "past thoughts, which are written as the chat template writes them"),
    Foreign("--log-disable --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps "
            "--no-log-jsonl", 0, ANY, LOGS),
    Foreign("--path --ui-config --webui-config --ui-config-file --webui-config-file "
            "--cors-methods --cors-headers", 1, ANY, PAGE),
    Foreign("--no-ui-mcp-proxy --no-webui-mcp-proxy --cors-credentials -no-ag --no-agent",
            0, ANY, PAGE),
    Foreign("--no-mmproj --no-mmproj-auto --mmproj-auto --mmproj-offload "
            "--no-mmproj-offload --jinja --no-jinja -e --escape --no-escape --embedding "
            "--embeddings --metrics --no-skip-chat-parsing --lora-init-without-apply",
            0, ANY, "what is so here anyway"),
    Foreign("--image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-fps "
            "--video-timestamp-interval --video-ffmpeg-dir --media-path", 1, ANY, IMAGES),
    # What would change answers.
    Foreign("-mm --mmproj -mmu --mmproj-url", 1, (), IMAGES),
    Foreign("-hft --hf-token -dr --docker-repo -hfd -hfrd --hf-repo-draft --spec-draft-hf", 1, (),
            LOAD),
    Foreign("--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default "
            "--fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default "
            "--gpt-oss-20b-default --gpt-oss-120b-default --vision-gemma-4b-default "
            "--vision-gemma-12b-default", 0, (), LOAD),
    Foreign("--tools --tools-runtime --mcp-servers-config --mcp-servers-json", 1, (), TOOLS),
    Foreign("-ag --agent --ui-mcp-proxy --webui-mcp-proxy", 0, (), TOOLS),
    Foreign("--lora --lora-scaled --control-vector --control-vector-scaled", 1, (),
            "weights that are added to a model's; merge them into the model file"),
    Foreign("--control-vector-layer-range", 2, (), "a control vector, which is not loaded"),
    Foreign("--override-kv", 1, (), "metadata of the model file; change the file"),
    Foreign("--rope-scaling", 1, ("none",), ROPE),
    Foreign("--rope-scale --rope-freq-scale --yarn-attn-factor", 1, ("1", "1.0"), ROPE),
    Foreign("--rope-freq-base --yarn-orig-ctx", 1, ("0", "0.0"), ROPE),
    Foreign("--yarn-ext-factor --yarn-beta-slow --yarn-beta-fast", 1, ("-1", "-1.0"), ROPE),
    Foreign("-gan --grp-attn-n", 1, ("1",), "self-extension of contexts; raise --ctx-size"),
    Foreign("-gaw --grp-attn-w", 1, ANY, "self-extension of contexts, which is off"),
    Foreign("--adaptive-target", 1, ("-1", "-1.0"), "a sampler that is not here"),
    Foreign("--adaptive-decay", 1, ANY, "a sampler that is off"),
    Foreign("--reranking --rerank", 0, (),
            "rankings of texts, for which no model it runs was trained"),
    Foreign("-sp --special", 0, (), "control tokens in the answer's text, which are left out here"),
    Foreign("--spm-infill", 0, (), "the suffix before the prefix in /infill"),
    Foreign("--skip-chat-parsing", 0, (),
            "an answer without thoughts and tool calls told apart; use --reasoning-format none"),
    Foreign("--reasoning-budget-message", 1, ("",), "a budget of thoughts other than all or none"),
    Foreign("--rpc", 1, (), "llama.cpp's own workers; start dllama-worker on them and use "
            "--workers"),
)  # fmt: skip


class Note(argparse.Action):
    """Keeps what was given of FOREIGN, in order."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        words = [values] if isinstance(values, str) else [str(value) for value in values or ()]
        given = getattr(namespace, "foreign", ())
        namespace.foreign = (*given, (option_string, words))


def add_foreign_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every flag of FOREIGN, without a line in the help."""
    for row in FOREIGN:
        for name in row.names.split():
            parser.add_argument(
                name, nargs=row.n_values, action=Note, help=argparse.SUPPRESS, dest=FOREIGN_DEST,
                default=(),
            )  # fmt: skip


def taken_flags(args: argparse.Namespace) -> Iterator[str]:
    """Yields the flags that were given and change nothing. Raises ConfigError for the first that
    would change an answer."""
    rows = {name: row for row in FOREIGN for name in row.names.split()}
    for name, words in args.foreign:
        row = rows[name]
        if row.neutral is not ANY and not (words and set(words) <= set(row.neutral)):
            neutral = (
                f" ({name} {row.neutral[0]} is taken)" if row.neutral and row.neutral[0] else ""
            )
            raise ConfigError(
                f"{name} is a flag of llama-server that would change what is answered, and this "
                f"server cannot follow it{neutral}. It is about {row.why}. Leave it out."
            )
        yield name

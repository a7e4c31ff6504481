"""The files of a repository, and which of them are the model that a name means. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dllama.errors import NotOnHub
from dllama.hub.checksum import Checksum
from dllama.hub.names import HubName

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})$")
_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|FP?16|FP?32|MXFP4\w*|NVFP4))$", re.IGNORECASE
)
_PREFERRED = (
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_K_L", "UD-Q4_K_XL", "Q5_K_M", "Q6_K", "Q8_0", "MXFP4",
)  # fmt: skip
_NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-")  # how files begin that help a model
_CHECKPOINT = re.compile(
    r"(?:config|generation_config|tokenizer\w*|special_tokens_map|added_tokens|vocab|chat_template"
    r"|model\.safetensors\.index)\.json|merges\.txt|(?:tokenizer|tiktoken)\.model|chat_template\.jinja"
    r"|[\w.-]+\.safetensors"
)
SAFETENSORS = "safetensors"
M_FILE = "m"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be downloaded. `path` is below the model's folder, with slashes; `version` is
    what its server calls this content, "" where nothing is known."""

    path: str
    n_bytes: int
    url: str
    checksum: Checksum | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """A model: its whole name and its files. `main` is the path that --model takes, "" for the
    folder of all of them."""

    name: str
    folder: tuple[str, ...]
    files: tuple[RemoteFile, ...]
    main: str
    revision: str = ""
    repo: str = ""  # on the hub

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)

    @property
    def id(self) -> str:
        """Twelve digits that are the same for the same files."""
        facts = "\n".join(f"{f.path} {f.n_bytes} {f.checksum or f.url}" for f in self.files)
        return hashlib.sha256(f"{self.name}\n{facts}".encode()).hexdigest()[:12]


def choose(name: HubName, revision: str, files: Sequence[RemoteFile]) -> Selection:
    """Returns the model that a name means among a repository's files. Raises NotOnHub, with the
    types that there are."""
    if name.file:
        return _selection(name, revision, _named(name, files), name.file)
    models = gguf_models(files)
    if models:
        tag = _tag_of(name, models)
        parts = models[tag]
        return _selection(name.tagged(tag), revision, parts, parts[0].path)
    weights = [file for file in files if file.path.endswith(".m") and "/" not in file.path]
    if weights and name.tag.lower() in ("", M_FILE):
        return _m_selection(name, revision, weights, files)
    checkpoint = checkpoint_files(files)
    if not checkpoint:
        raise NotOnHub(
            f"{name.repo} has no files that can be run: no GGUF file, no config.json with "
            "safetensors files, no .m file. Look for a repository of the model whose name ends "
            "with -GGUF."
        )
    if name.tag and name.tag.lower() != SAFETENSORS:
        raise NotOnHub(
            f"{name.repo} has its weights in safetensors files alone, none of the type {name.tag}; "
            f"leave out the type, or look for a repository whose name ends with -GGUF."
        )
    return _selection(name.tagged(SAFETENSORS), revision, checkpoint, "")


def gguf_models(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Returns the GGUF models among files, by their types: each the parts of one file, in order.
    Several of one type, and those without any, go by their files' names."""
    by_stem: dict[str, list[RemoteFile]] = {}
    for file in sorted(files, key=lambda f: f.path):
        base = file.path.rpartition("/")[2].lower()
        if base.endswith(".gguf") and not base.startswith(_NO_MODELS):
            by_stem.setdefault(_SPLIT.sub("", file.path[: -len(".gguf")]), []).append(file)
    whole = {stem: parts for stem, parts in by_stem.items() if _is_whole(parts)}
    tags = {stem: _quant_of(stem) for stem in whole}
    found: dict[str, list[RemoteFile]] = {}
    for stem, parts in whole.items():
        is_alone = bool(tags[stem]) and list(tags.values()).count(tags[stem]) == 1
        found[tags[stem] if is_alone else stem.rpartition("/")[2]] = parts
    return found


def _quant_of(stem: str) -> str:
    found = _QUANT.search(stem)
    return found[1].upper() if found else ""


def _is_whole(parts: Sequence[RemoteFile]) -> bool:
    """Returns whether all parts of a split file are there."""
    numbers = [_SPLIT.search(part.path.removesuffix(".gguf")) for part in parts]
    if len(parts) == 1 and numbers[0] is None:
        return True
    return [n and (int(n[1]), int(n[2])) for n in numbers] == [
        (i + 1, len(parts)) for i in range(len(parts))
    ]


def _tag_of(name: HubName, models: Mapping[str, Sequence[RemoteFile]]) -> str:
    """Returns the type that is meant, as the table of types has it."""
    by_word = {tag.lower(): tag for tag in models}
    if name.tag:
        if name.tag.lower() in by_word:
            return by_word[name.tag.lower()]
        raise NotOnHub(
            f"{name.repo} has no model of the type {name.tag}; it has "
            f"{', '.join(list(models)[:40])}."
        )
    for tag in _PREFERRED:
        if tag in models:
            return tag
    return next(iter(models))


def checkpoint_files(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Returns the files of a checkpoint, with its tokenizer; none if there is no whole one."""
    found = [file for file in files if _CHECKPOINT.fullmatch(file.path)]
    names = {file.path for file in found}
    if "model.safetensors.index.json" in names or "model.safetensors" in names:
        # Mistral's have the same weights once more.
        found = [file for file in found if not file.path.startswith("consolidated")]
    has_weights = any(file.path.endswith(".safetensors") for file in found)
    return found if has_weights and "config.json" in names else []


def _m_selection(
    name: HubName, revision: str, weights: Sequence[RemoteFile], files: Sequence[RemoteFile]
) -> Selection:
    tokenizers = [file for file in files if file.path.endswith(".t") and "/" not in file.path]
    if len(weights) != 1 or len(tokenizers) != 1:
        raise NotOnHub(
            f"{name.repo} has {len(weights)} .m files and {len(tokenizers)} .t files, where one of "
            "each was expected; name the files by their URLs."
        )
    # The tokenizer of a .m file is looked for beside it, under its name.
    model, tokenizer = weights[0], tokenizers[0]
    named = RemoteFile(
        model.path.removesuffix(".m") + ".t", tokenizer.n_bytes, tokenizer.url, tokenizer.checksum
    )
    return _selection(name.tagged(M_FILE), revision, [model, named], model.path)


def _named(name: HubName, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Returns the file that is named, with the other parts where it is one of several."""
    by_path = {file.path: file for file in files}
    if name.file not in by_path:
        raise NotOnHub(f"{name.repo} has no file {name.file}; look at its list of files.")
    stem = name.file.removesuffix(".gguf")
    split = _SPLIT.search(stem)
    if split is None:
        return [by_path[name.file]]
    paths = [
        f"{stem[: split.start()]}-{i + 1:05d}-of-{split[2]}.gguf" for i in range(int(split[2]))
    ]
    missing = [path for path in paths if path not in by_path]
    if missing:
        raise NotOnHub(
            f"{name.repo} lacks {missing[0]}, a part of the model that {name.file} is of."
        )
    return [by_path[path] for path in paths]


def _selection(name: HubName, revision: str, files: Sequence[RemoteFile], main: str) -> Selection:
    return Selection(str(name), name.folder, tuple(files), main, revision, name.repo)

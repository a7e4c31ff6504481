"""Models in the cache of `huggingface_hub`, which is only read. Its layout:
models--USER--REPO/{refs/main, snapshots/COMMIT/FILES -> ../../blobs/DIGEST}."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dllama.hub.local_model import LocalModel, Origin
from dllama.hub.names import HubName, is_safe_path
from dllama.hub.repository import (
    SAFETENSORS,
    RemoteFile,
    checkpoint_files,
    gguf_models,
)

_PREFIX = "models--"
_MAX_FILES = 20_000


def cached_models(cache: Path | None) -> list[LocalModel]:
    """Returns the models of the newest snapshot of each repository in the cache."""
    if cache is None:
        return []
    try:
        repos = sorted(p for p in cache.iterdir() if p.name.startswith(_PREFIX) and p.is_dir())
    except OSError:
        return []
    return [model for repo in repos for model in _of_repo(repo)]


def cached_blob(cache: Path | None, repo: str, file: RemoteFile) -> Path | None:
    """Returns the blob of the cache that has a file's digest and size, if there is one; what is in
    it has still to be checked."""
    if cache is None or not repo or file.checksum is None:
        return None
    path = cache / (_PREFIX + repo.replace("/", "--")) / "blobs" / file.checksum.hexdigest
    try:
        is_it = not path.is_symlink() and path.stat().st_size == file.n_bytes
    except OSError:
        return None
    return path if is_it else None


def _of_repo(folder: Path) -> Iterator[LocalModel]:
    user, _, repo = folder.name.removeprefix(_PREFIX).partition("--")
    snapshot = _snapshot(folder)
    if not repo or snapshot is None:
        return
    files = list(_files(snapshot, folder))
    name = HubName(f"{user}/{repo}")
    for tag, parts in gguf_models(files).items():
        yield _model(name.tagged(tag), snapshot / parts[0].path, snapshot, parts)
    checkpoint = checkpoint_files(files)
    if checkpoint:
        yield _model(name.tagged(SAFETENSORS), snapshot, snapshot, checkpoint)


def _model(name: HubName, path: Path, snapshot: Path, files: list[RemoteFile]) -> LocalModel:
    return LocalModel(
        name=str(name),
        id=snapshot.name[:12],
        path=path,
        n_bytes=sum(file.n_bytes for file in files),
        modified_s=max((snapshot / file.path).stat().st_mtime for file in files),
        origin=Origin.HUB_CACHE,
        revision=snapshot.name,
    )


def _snapshot(folder: Path) -> Path | None:
    """Returns the snapshot that the branch main was at."""
    try:
        commit = (folder / "refs" / "main").read_text().strip()[:64]
    except (OSError, ValueError):
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if commit.isalnum() and snapshot.is_dir() else None


def _files(snapshot: Path, folder: Path) -> Iterator[RemoteFile]:
    """Yields the files of a snapshot that are there, and lead nowhere outside of the cache."""
    inside = folder.resolve()
    for n, path in enumerate(sorted(snapshot.rglob("*"))):
        if n > _MAX_FILES:
            return
        relative = path.relative_to(snapshot).as_posix()
        try:
            is_ours = path.is_file() and inside in path.resolve().parents
            size = path.stat().st_size if is_ours else 0
        except OSError:
            continue
        if is_ours and is_safe_path(relative):
            yield RemoteFile(relative, size, "")

"""Names of models as people write them: `hf.co/user/repo:QUANT`, a URL, a short name of the table.

Whatever comes out of here is safe to make paths and URLs of: every part was checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from dllama.errors import ModelNameError
from dllama.hub.aliases import ALIASES

HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")
MAIN = "main"
MAX_NAME = 1024  # characters
MAX_PARTS = 8  # folders and the file, of a path in a repository
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE_PART = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,200}")
_SHA256 = re.compile(r"sha256=([0-9a-fA-F]{64})")
_KEPT = re.compile(r"[^A-Za-z0-9._-]+")
EXAMPLES = (
    "hf.co/USER/REPO:QUANT, USER/REPO:QUANT, a URL of a file, or a short name like qwen3:0.6b"
)


@dataclass(frozen=True, slots=True)
class HubName:
    """A model of a repository on the hub: the files of a type (`tag`, such as Q4_K_M; "" is for
    the hub's files to decide), or one `file`."""

    repo: str  # USER/REPO
    tag: str = ""
    file: str = ""
    revision: str = MAIN

    def __str__(self) -> str:
        at = "" if self.revision == MAIN else f"@{self.revision}"
        rest = f"/{self.file}" if self.file else f":{self.tag}" if self.tag else ""
        return f"hf.co/{self.repo}{at}{rest}"

    def tagged(self, tag: str) -> HubName:
        """Returns the name of the files of a type."""
        return self if self.file else replace(self, tag=tag)

    @property
    def folder(self) -> tuple[str, ...]:
        """The folders that the model lies in, below the folder of all models."""
        user, repo = self.repo.split("/")
        return ("hf.co", user, repo, plain(self.file or self.tag or "all"))


def without_hub(whole_name: str) -> str:
    """Returns the whole name of a model as llama-server's router lists it: USER/REPO:QUANT."""
    return whole_name.removeprefix(f"{HUB_HOSTS[0]}/")


@dataclass(frozen=True, slots=True)
class UrlName:
    """A file somewhere on the web, with its SHA-256 where the name says it (#sha256=...)."""

    url: str
    sha256: str = ""

    def __str__(self) -> str:
        return self.url

    @property
    def file(self) -> str:
        return unquote(urlsplit(self.url).path).rpartition("/")[2]

    @property
    def folder(self) -> tuple[str, ...]:
        """The folders that the model lies in, below the folder of all models."""
        return ("web", plain(urlsplit(self.url).hostname or "host"), plain(self.file))


ModelName = HubName | UrlName


def plain(text: str) -> str:
    """Returns a text as the name of one folder."""
    return _KEPT.sub("_", text).strip(".") or "_"


def is_safe_path(path: str) -> bool:
    """Returns whether a path of a repository stays below the folder that it is put into, and is
    none of our own files there."""
    parts = path.split("/")
    return len(parts) <= MAX_PARTS and all(
        _FILE_PART.fullmatch(part) and not part.startswith(".") and part.strip() == part
        for part in parts
    )


def parse_name(text: str, endpoint: str = "") -> ModelName:
    """Returns the model that a text names; the host of `endpoint` is the hub's too. Raises
    ModelNameError."""
    name = text.strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise ModelNameError(f"{text[:60]!r} names no model; write {EXAMPLES}.")
    name = ALIASES.get(name.lower(), name)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name):
        return _of_url(name, endpoint)
    hosts = (*HUB_HOSTS, *(host for host in (urlsplit(endpoint).netloc,) if host))
    host, _, rest = name.partition("/")
    if host.lower() in hosts:
        return _of_repo(rest, text)
    if "/" not in name.partition(":")[0]:
        return _of_handle(name, text)
    return _of_repo(name, text)


def _of_handle(name: str, text: str) -> HubName:
    """Reads `author:repo:file.gguf`, as cortex writes it."""
    parts = name.split(":", 2)
    if len(parts) != 3:
        raise ModelNameError(
            f"{text[:60]!r} is no model that this version knows by a short name; write {EXAMPLES}."
        )
    return _checked(f"{parts[0]}/{parts[1]}", text, file=parts[2])


def _of_repo(rest: str, text: str) -> HubName:
    """Reads `user/repo[@revision][:tag]`, or `user/repo[@revision]/file.gguf`."""
    path, _, tag = rest.partition(":")
    user, _, below = path.rstrip("/").partition("/")
    place, _, file = below.partition("/")
    repo, _, revision = place.partition("@")
    is_tag = not tag or (not file and _TAG.fullmatch(tag))
    if not is_tag or (":" in rest and not tag) or ("@" in place and not revision):
        raise ModelNameError(f"{text[:100]!r} is no name of a model; write {EXAMPLES}.")
    tag = "" if tag.lower() == "latest" else tag
    return _checked(f"{user}/{repo}", text, tag=tag, file=file, revision=revision or MAIN)


def _checked(
    repo: str, text: str, *, tag: str = "", file: str = "", revision: str = MAIN
) -> HubName:
    parts = repo.split("/")
    is_repo = len(parts) == 2 and all(_PART.fullmatch(p) and ".." not in p for p in parts)
    if not is_repo or (file and not is_safe_path(file)) or not _TAG.fullmatch(revision):
        raise ModelNameError(f"{text[:100]!r} is no name of a model; write {EXAMPLES}.")
    return HubName(repo, tag, file, revision)


def _of_url(text: str, endpoint: str) -> ModelName:
    """Reads a URL: a page or a file of the hub is that of a repository."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise ModelNameError(f"{text[:100]!r} is no URL of http or https; write {EXAMPLES}.")
    if parts.username or parts.password:
        raise ModelNameError(
            "A URL with a password would be kept in files and logs; leave it out, and use HF_TOKEN "
            "for the hub."
        )
    if host in HUB_HOSTS or (endpoint and parts.netloc == urlsplit(endpoint).netloc):
        words = unquote(parts.path).strip("/").split("/")
        if len(words) > 4 and words[2] in ("resolve", "blob"):
            return _checked("/".join(words[:2]), text, file="/".join(words[4:]), revision=words[3])
        if len(words) == 2 or (len(words) == 4 and words[2] == "tree"):
            return _of_repo("/".join(words[:2]), text)
    found = _SHA256.fullmatch(parts.fragment)
    name = UrlName(parts._replace(fragment="").geturl(), found[1].lower() if found else "")
    if not is_safe_path(name.file):
        raise ModelNameError(f"{text[:100]!r} names no file; give the URL of a model's file.")
    return name

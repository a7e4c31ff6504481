"""The image and the containers on one machine. No Docker is needed: what is named has to exist."""

from __future__ import annotations

import os
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from api.routes.table import PUBLIC_PATHS
from cluster.sockets import DEFAULT_PORT, session_ports
from cluster.worker.daemon import DRAIN_S
from dllama.cli.command_table import all_parsers
from dllama.cli.flags.settings import DEFAULT_DRAIN_S
from dllama.cli.sources.variables import unknown_variables
from tests.deploy.commands import DEPLOY, HOUSE, parsed, seconds, split

DOCKERFILE = (HOUSE / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((HOUSE / "compose.yaml").read_text())
SERVICES: dict[str, dict] = COMPOSE["services"]


def test_the_image_holds_every_package_and_what_builds_it() -> None:
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for word in line.split()[:-1]
    }  # fmt: skip
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())
    packages = {
        one.rstrip("*") for one in project["tool"]["setuptools"]["packages"]["find"]["include"]
    }
    assert copied == packages | {"pyproject.toml", "README.md", "LICENSE"}
    assert all((HOUSE / name).exists() for name in copied)
    first, *kept = (HOUSE / ".dockerignore").read_text().split()
    assert first == "**" and {line[1:] for line in kept if line.startswith("!")} == copied


def test_the_image_runs_as_somebody_who_is_not_root_and_opens_our_ports() -> None:
    user = re.findall(r"^USER (.+)$", DOCKERFILE, re.M)
    assert user == ["10001:10001"] and "--uid 10001" in DOCKERFILE
    api = parsed(["dllama-root"]).port
    assert f"EXPOSE {api} {DEFAULT_PORT}-{session_ports(DEFAULT_PORT)[0]}\n" in DOCKERFILE


def test_every_variable_that_is_set_is_read() -> None:
    files = [HOUSE / "Dockerfile", HOUSE / "compose.yaml", *DEPLOY.rglob("*.*")]
    named = {name for path in files for name in re.findall(r"\bDLLAMA_[A-Z_]+\b", path.read_text())}
    named.discard("DLLAMA_")
    assert len(named) > 4 and not unknown_variables(dict(all_parsers()), dict.fromkeys(named, "x"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_starts_with_flags_that_exist_and_has_time_to_end(name: str) -> None:
    service = SERVICES[name]
    parsed(split(service["command"]))
    parsed(split(service["command"], {"THREADS": "7", "LOG_FORMAT": "json"}))
    assert seconds(service["stop_grace_period"]) > max(DEFAULT_DRAIN_S, DRAIN_S)
    places = dict(one.split(":")[:2] for one in service["volumes"] if one[0] not in "$./")
    assert set(places) <= set(COMPOSE["volumes"]) and {"/cache", "/state"} <= set(places.values())
    assert all(
        f" {place} " in f" {DOCKERFILE} " or f"={place}" in DOCKERFILE for place in places.values()
    )
    assert service["read_only"] and service["tmpfs"] == ["/tmp"] and service["cap_drop"] == ["ALL"]


def test_the_router_knows_every_worker_and_is_reached_and_asked_where_it_listens() -> None:
    router = SERVICES["router"]
    flags = parsed(split(router["command"]))
    workers = [name for name in SERVICES if name != "router"]
    assert list(flags.workers) == workers == router["depends_on"]
    assert flags.host == ("0.0.0.0",) and router["ports"] == [
        f"127.0.0.1:{flags.port}:{flags.port}"
    ]
    assert any(
        one.split(":")[-2] == str(flags.models_dir)
        for one in router["volumes"]
        if one.count(":") > 1
    )
    url = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", router["healthcheck"]["test"][-1])
    assert url is not None and int(url[1]) == flags.port and url[2] in PUBLIC_PATHS


def test_nothing_of_this_machine_is_in_the_image() -> None:
    """What .dockerignore lets in are files that belong to the packages."""
    kept = [line[1:] for line in (HOUSE / ".dockerignore").read_text().split() if line[0] == "!"]
    for name in kept:
        for folder, _, files in os.walk(HOUSE / name):
            if Path(folder).name == "__pycache__":
                continue
            strange = [f for f in files if not any(fnmatch(f, p) for p in KINDS)]
            assert not strange, (folder, strange)


KINDS = ("*.py", "py.typed", "*.gguf", "*.html", "*.css", "*.js", "*.svg", "*.licence.txt")

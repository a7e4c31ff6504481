"""Chats with https servers: which certificates are believed, on real connections."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.http.listener import tls_context
from dllama.cli.chat_client import ChatClient
from dllama.cli.hybrid.local_server import wait_until_ready
from dllama.cli.hybrid.root_words import read_root_words
from dllama.cli.server_address import ServerAddress
from dllama.cli.trust import OnlyThis, Trust, Untrusted
from dllama.errors import ClusterError, ConfigError
from tests.api.listening import listening
from tests.api.serving import says
from tests.certificates import make_certificate, openssl
from tests.dllama.cli.test_commands import dllama
from tests.scripted_runner import ScriptedEngine

Files = tuple[Path, Path]  # of a certificate and its key


@contextmanager
def serving(files: Files) -> Iterator[str]:
    with listening(ScriptedEngine(says("A toy.")), tls=tls_context(*files)) as url:
        assert url.startswith("https://")
        yield url


def answer(url: str, trust: Trust | None) -> str:
    client = ChatClient(ServerAddress(url, None, trust), {})
    return "".join(piece.text for piece in client.ask("Hi"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_certificate(
        tmp_path_factory.mktemp("authority"), "-addext", "keyUsage=critical,keyCertSign",
        name="An authority of our own", address="",
    )  # fmt: skip


def test_a_server_with_a_certificate_of_its_own_is_believed_by_just_that(
    certificate: Files, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path / "other")
    with serving(certificate) as url:
        assert answer(url, OnlyThis(certificate[0])) == "A toy."
        assert answer(url, Trust(certificate[0])) == "A toy.", "its name is right too"
        for trust in (None, Trust(other[0]), OnlyThis(other[0])):
            with pytest.raises(
                Untrusted, match=r"the certificate of the server at .* is not trusted"
            ):
                answer(url, trust)


def test_names_and_authorities_do_not_matter_to_who_has_the_certificate(
    authority: Files, tmp_path: Path
) -> None:
    """One of another name, signed by an authority that is not in the file, and a chain."""
    odd = make_certificate(
        tmp_path / "odd", name="elsewhere", address="DNS:elsewhere", authority=authority
    )
    chain = tmp_path / "chain.pem"
    chain.write_text(odd[0].read_text() + authority[0].read_text())
    for files in (odd, (chain, odd[1])):
        with serving(files) as url:
            assert answer(url, OnlyThis(files[0])) == "A toy."
            with pytest.raises(Untrusted, match=r"not valid for '127.0.0.1'"):
                answer(url, Trust(authority[0]))


def test_another_certificate_of_the_same_authority_is_not_the_one(
    authority: Files, tmp_path: Path
) -> None:
    """Nor is one that the certificate itself has signed, which may sign."""
    ours = make_certificate(tmp_path / "ours", authority=authority)
    theirs = make_certificate(tmp_path / "theirs", authority=authority)
    below = make_certificate(tmp_path / "below", authority=authority)
    with serving(theirs) as url:
        assert answer(url, Trust(authority[0])) == "A toy."
        with pytest.raises(Untrusted, match="the server ought to show the one of"):
            answer(url, OnlyThis(ours[0]))
    with serving(below) as url, pytest.raises(Untrusted, match="it is another certificate"):
        answer(url, OnlyThis(authority[0]))


def test_a_certificate_that_has_run_out_is_said_to_have(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    _, own = make_certificate(tmp_path)
    request = tmp_path / "request.pem"
    openssl("req", "-new", "-key", str(own), "-subj", "/CN=x", "-out", str(request))
    openssl(
        "x509", "-req", "-in", str(request), "-signkey", str(key), "-days", "-1", "-out", str(cert)
    )
    with serving((cert, key)) as url, pytest.raises(Untrusted, match="expired"):
        answer(url, OnlyThis(cert))


def test_waiting_for_a_server_ends_where_another_answers(
    certificate: Files, tmp_path: Path
) -> None:
    other = make_certificate(tmp_path / "other")
    with serving(certificate) as url:
        wait_until_ready(ServerAddress(url, None, OnlyThis(certificate[0])), [])
        with pytest.raises(Untrusted):
            wait_until_ready(ServerAddress(url, None, OnlyThis(other[0])), [])


def test_plain_and_secure_are_told_apart(certificate: Files) -> None:
    told = pytest.raises(ClusterError, match=r"speaks no TLS .*; write http://")
    with listening(ScriptedEngine(says("x"))) as url, told:
        answer(url.replace("http:", "https:"), None)


def test_the_chat_of_a_server_believes_the_certificate_of_its_flags(certificate: Files) -> None:
    cert, key = map(str, certificate)
    flags = ["--ssl-cert-file", cert, "--ssl-key-file", key, "--api-prefix", "/llm"]
    words = read_root_words(flags, has_default_model=False, n_workers=0)
    assert words.url == "https://127.0.0.1:8080/llm"
    assert str(words.address()) == words.url
    with pytest.raises(ConfigError, match="has no certificate"):
        OnlyThis(certificate[1])
    with pytest.raises(ConfigError, match="cannot be read"):
        OnlyThis(certificate[0].parent / "nowhere.pem")


def test_dllama_chat_names_an_authority_by_a_flag(authority: Files, tmp_path: Path) -> None:
    """And the other commands that ask a server."""
    files = make_certificate(tmp_path / "server", authority=authority)
    with serving(files) as url:
        flags = ("--url", url, "--ca-file", authority[0])
        said = dllama("chat", *flags, stdin="Hi\n")
        assert said.returncode == 0 and said.stdout == "A toy.\n", said.stderr
        assert dllama("ps", *flags).returncode == 0
        refused = dllama("chat", "--url", url, stdin="Hi\n")
        assert refused.returncode == 1 and "--ca-file" in refused.stderr
        wrong = dllama("chat", "--url", url, "--ca-file", authority[1], stdin="Hi\n")
        assert wrong.returncode == 1 and "--ca-file takes a PEM file" in wrong.stderr


def test_nothing_turns_the_check_off() -> None:
    """Every context asks for a certificate, and one is found good or none is."""
    context = Trust()._context
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(ClusterError, match="cannot be reached"):
            answer(f"https://127.0.0.1:{silent.getsockname()[1]}", None)

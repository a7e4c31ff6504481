"""A certificate of 127.0.0.1, for servers of tests that speak TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The files of a certificate and of its key; the test is skipped where none can be made."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(
    folder: Path,
    *more: str,
    name: str = "localhost",
    address: str = "IP:127.0.0.1",
    authority: tuple[Path, Path] | None = None,
) -> tuple[Path, Path]:
    """Makes the files of a certificate and of its key, signed by itself or by an authority; `more`
    are words for openssl, which the test is skipped without."""
    folder.mkdir(exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    subject = (
        "-subj",
        f"/CN={name}",
        *(("-addext", f"subjectAltName={address}") if address else ()),
    )
    files = ("-keyout", str(key), "-out", str(cert))
    signed = ("-x509", "-days", "2")
    if authority is not None:
        signed = (*signed, "-CA", str(authority[0]), "-CAkey", str(authority[1]))
    openssl("req", *signed, *CURVE, *subject, *files, *more)
    return cert, key


def openssl(*words: str) -> None:
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"certificates are made with openssl, which failed: {error}")

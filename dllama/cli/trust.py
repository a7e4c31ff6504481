"""Which certificates of https servers a command believes. Never all of them."""

from __future__ import annotations

import functools
import http.client
import ssl
from pathlib import Path

from dllama.errors import ClusterError, ConfigError

MAX_CERT_BYTES = 1 << 20


class Untrusted(ClusterError):
    """A server showed a certificate that is not believed."""


class Trust:
    """Believes the certificates that authorities have signed: the system's, or those of the PEM
    file `ca_file` in their place."""

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file

    def connection(
        self, host: str, port: int | None, timeout_s: float
    ) -> http.client.HTTPSConnection:
        """Returns a connection that is not open yet. Raises ConfigError where the file cannot be
        used; opening it raises ssl.SSLCertVerificationError."""
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._context)

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        if self._ca_file is None:
            return ssl.create_default_context()
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:  # an SSLError is one too
            raise ConfigError(
                f"The certificates of {self._ca_file} cannot be used ({error.strerror or error}); "
                "--ca-file takes a PEM file with those of the server's authority."
            ) from None

    def advice(self) -> str:
        """Returns what to do about a certificate that is not believed."""
        return "name the PEM file of its authority with --ca-file"


class OnlyThis(Trust):
    """Believes the first certificate of a PEM file and no other, whoever has signed it and whatever
    name it has, while it is valid: what a server shows that has the file itself."""

    def __init__(self, cert_file: Path) -> None:
        """Raises ConfigError where the file has no certificate."""
        super().__init__(cert_file)
        self._cert_file = cert_file
        self._der = first_certificate(cert_file)

    def connection(
        self, host: str, port: int | None, timeout_s: float
    ) -> http.client.HTTPSConnection:
        return _Pinned(host, port, timeout_s, self._context, self._der)

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # the certificate itself is compared
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # no authority needs to be known
        context.load_verify_locations(cadata=self._der)
        return context

    def advice(self) -> str:
        return f"the server ought to show the one of {self._cert_file}"


class _Pinned(http.client.HTTPSConnection):
    """A connection to the server that has one certificate."""

    def __init__(
        self, host: str, port: int | None, timeout_s: float, context: ssl.SSLContext, der: bytes
    ) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._der = der

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        if self.sock.getpeercert(binary_form=True) != self._der:
            self.close()
            raise ssl.SSLCertVerificationError("it is another certificate")


def first_certificate(path: Path) -> bytes:
    """Returns the first certificate of a PEM file, in DER. Raises ConfigError."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            text = file.read(MAX_CERT_BYTES)
        start = text.index(begin)
        return ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)])
    except OSError as error:
        raise ConfigError(
            f"The certificate {path} cannot be read: {error.strerror or error}."
        ) from None
    except ValueError:
        raise ConfigError(f"{path} has no certificate; --ssl-cert-file takes a PEM file.") from None


def untrusted(url: str, error: ssl.SSLCertVerificationError, trust: Trust) -> Untrusted:
    """Returns the error for a certificate that is not believed."""
    why = getattr(error, "verify_message", "") or str(error)
    return Untrusted(
        f"the certificate of the server at {url} is not trusted: {why}; {trust.advice()}"
    )

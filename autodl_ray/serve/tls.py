"""TLS of the service: a certificate and its key, checked before anything starts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from autodl_ray.errors import InputError

__all__ = ["Tls"]


@dataclass(frozen=True)
class Tls:
    """A certificate chain and its private key, PEM files without a password."""

    cert: Path
    key: Path

    @classmethod
    def of(cls, cert: Path | None, key: Path | None) -> Tls | None:
        """Return the pair, or None when neither is given.

        Raises:
            InputError: One of them is missing, or they cannot be used.
        """
        if cert is None and key is None:
            return None
        if cert is None or key is None:
            raise InputError("TLS needs a certificate and its key.", accepted="--tls-cert FILE --tls-key FILE")
        tls = cls(cert, key)
        tls.context()
        return tls

    def context(self) -> ssl.SSLContext:
        """Return what a server needs: TLS 1.2 and up.

        Raises:
            InputError: The files cannot be read, or do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise InputError(
                "The certificate and its key cannot be used.",
                seen=f"{self.cert}, {self.key}: {error}",
                accepted="PEM files that belong together, the key without a password",
            ) from error
        return context

    def options(self) -> dict[str, str]:
        """Return what Ray Serve's proxy is told."""
        return {"ssl_certfile": str(self.cert.resolve()), "ssl_keyfile": str(self.key.resolve())}


def _no_password() -> str:
    raise ValueError("the key has a password")  # without this, OpenSSL would ask on the terminal

"""What both clients give to httpx: where the service is, the key that opens it, and whom TLS trusts."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx

from autodl_ray.errors import InputError
from autodl_ray.serve.settings import check_api_key, read_api_key

__all__ = ["connection"]


def connection(
    url: str, *, api_key: str | None, api_key_file: str | Path | None, timeout_s: float, verify: bool | str
) -> dict[str, Any]:
    """Return the arguments of httpx's clients; see :class:`~autodl_ray.serve.client.Client` for what they stand for.

    Raises:
        InputError: The address is none, the key is not usable, or a file cannot be read.
    """
    if api_key is not None:
        key: str | None = check_api_key(api_key, "api_key")
    else:
        key = read_api_key(None if api_key_file is None else Path(api_key_file))
    return {
        "base_url": _address(url),
        "headers": {} if key is None else {"authorization": f"Bearer {key}"},
        "timeout": timeout_s,
        "verify": verify if isinstance(verify, bool) else _trust(verify),
    }


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError("The address of the service is no URL.", seen=f"{url}: {error}") from error
    if address.scheme not in ("http", "https") or not address.host:
        raise InputError("The address of the service is no URL.", seen=url, accepted="http://HOST:PORT or https://…")
    return address


def _trust(certificate: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=certificate)
    except OSError as error:
        raise InputError("The certificate to trust cannot be read.", seen=f"{certificate}: {error}") from error

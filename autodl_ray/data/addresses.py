"""Addresses of remote data: shown without the keys that they may carry."""

from __future__ import annotations

import re

__all__ = ["hidden"]

_USER = re.compile(r"(?<=://)[^/@?]*@")
_SECRET = re.compile(r"((?:secret_key|access_key|session_token)=)[^&]*")


def hidden(address: str) -> str:
    """Return an address without its credentials, for messages and records.

    Example:
        >>> hidden("s3://key:secret@bucket/photos?region=eu")
        's3://…@bucket/photos?region=eu'
    """
    return _SECRET.sub(r"\1…", _USER.sub("…@", address))

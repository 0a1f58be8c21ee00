"""Keys in addresses are not shown."""

from __future__ import annotations

import pytest

from autodl_ray.data.addresses import hidden


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://key:secret@bucket/p?region=eu", "s3://…@bucket/p?region=eu"),
        ("s3://bucket/p?access_key=a&secret_key=b&region=eu", "s3://bucket/p?access_key=…&secret_key=…&region=eu"),
        ("photos/a@b", "photos/a@b"),
        ("s3://bucket/a@b.zip", "s3://bucket/a@b.zip"),
    ],
)
def test_credentials_are_left_out(address: str, shown: str) -> None:
    assert hidden(address) == shown

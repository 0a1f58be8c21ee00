"""The bytes of versions: blobs by their sha256, many to a file."""

from autodl_ray.data.objects.pack import PackIndex
from autodl_ray.data.objects.packs import Blob, Packs, places_of
from autodl_ray.data.objects.writer import PackWriter, disk_errors, writing_packs

__all__ = ["Blob", "PackIndex", "PackWriter", "Packs", "disk_errors", "places_of", "writing_packs"]

"""What is known of each picture after one reading: its hash, its size, whether it can be decoded; remembered."""

from autodl_ray.data.facts.memory import PictureFacts
from autodl_ray.data.facts.reading import Keeper, Reading, read_facts, read_pictures

__all__ = ["Keeper", "PictureFacts", "Reading", "read_facts", "read_pictures"]

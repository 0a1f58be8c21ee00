"""Dividing a data set: given splits and lists, or stratified, by group, by hash; what must not be cut stays whole."""

from autodl_ray.data.splits.divide import SPLITS, Division, divide
from autodl_ray.data.splits.units import Picture

__all__ = ["SPLITS", "Division", "Picture", "divide"]

"""Augmentation of training pictures: a catalogue of operations, and policies made of them."""

from autodl_ray.augment.catalogue import CATALOGUE
from autodl_ray.augment.mixing import BatchMixer
from autodl_ray.augment.nodes import Step
from autodl_ray.augment.op import Op, Target
from autodl_ray.augment.policy import AugmentPolicy
from autodl_ray.augment.scene import Scene

__all__ = ["CATALOGUE", "AugmentPolicy", "BatchMixer", "Op", "Scene", "Step", "Target"]

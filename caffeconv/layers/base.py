"""The public address of what a layer type of your own derives from; see docs/custom_layers.md."""

from __future__ import annotations

from caffeconv.errors import LayerError
from caffeconv.ir.layer import Arity, Gradients, LabelRule, Layer, at_least, exactly
from caffeconv.tensor.shape import canonical_axis

__all__ = ["Arity", "Gradients", "LabelRule", "Layer", "LayerError", "at_least", "canonical_axis", "exactly"]

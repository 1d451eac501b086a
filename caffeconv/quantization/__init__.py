"""Models that compute in eight-bit integers, with ranges and layers chosen by what data make of the net."""

from caffeconv.quantization.int8 import OutputChange, Quantized, quantize

__all__ = ["OutputChange", "Quantized", "quantize"]

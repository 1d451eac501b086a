"""Where a session computes: the user's choice as onnxruntime's providers and their options."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from caffeconv.errors import CaffeconvError, CaffeconvWarning
from caffeconv.files import arguments

CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"
Provider = str
"""``auto``, ``cpu``, ``openvino``, ``cuda`` or ``cuda:N``, the N-th GPU."""
PROVIDERS = "auto, cpu, openvino, cuda or cuda:N"
Providers = Sequence[tuple[str, Mapping[str, str]]]
"""onnxruntime's names, first choice first, with their options."""


@dataclass(frozen=True)
class Device:
    """A provider as the user names it. auto: CUDA where there is a GPU, else OpenVINO where this onnxruntime has it, else
    onnxruntime's own kernels for the CPU.
    """

    kind: Literal["auto", "cpu", "openvino", "cuda"]
    index: int | None = None


@dataclass(frozen=True)
class Placement:
    """The provider that onnxruntime gave a node of the model."""

    node: str
    op_type: str
    provider: str


def parse_provider(text: Provider) -> Device:
    """``cuda:1`` → Device("cuda", 1); CaffeconvError for what is no provider."""
    if text == "auto":
        return Device("auto")
    if text == "cpu":
        return Device("cpu")
    if text == "openvino":
        return Device("openvino")
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", text)
    if match is None:
        raise CaffeconvError(f"`provider={text!r}`: {PROVIDERS} (the N-th GPU, from 0) was needed")
    return Device("cuda", int(match[1]) if match[1] else None)


def with_options(names: Sequence[str], device: Device, threads: int | None, *, nhwc: bool) -> Providers:
    """onnxruntime's providers with their options; CaffeconvError where NHWC is requested and CUDA is not used."""
    if nhwc and CUDA not in names:
        raise CaffeconvError(
            "`nhwc=True`: the layout is chosen for CUDA alone, and this run computes on the CPU, where onnxruntime has a "
            "layout of its own; leave `nhwc=True` out"
        )
    cuda = {"use_tf32": "0"}  # on by default, it computes with 10 bits of mantissa where Caffe has 23
    if device.index is not None:
        cuda["device_id"] = str(device.index)
    if nhwc:
        cuda["prefer_nhwc"] = "1"
    openvino = {"device_type": "CPU", "precision": "FP32"}  # by default it computes with bfloat16 where there is AMX
    if threads is not None:
        openvino["num_of_threads"] = str(threads)
    options = {CUDA: cuda, OPENVINO: openvino}
    return [(name, options.get(name, {})) for name in names]


def report_fallback(provider: Provider, why: str, *, allowed: bool) -> None:
    """Warns that the CPU computes, where onnxruntime could not start CUDA; CaffeconvError where that is not allowed."""
    text = f"`provider={provider!r}`: there is a GPU, but onnxruntime could not start CUDA: {why}"
    if not allowed:
        raise CaffeconvError(f"{text}. Or say `provider='cpu'`")
    warnings.warn(f"{text}. The CPU computes", CaffeconvWarning, stacklevel=3)


def report_openvino_failure(why: str) -> None:
    """Warns that onnxruntime's own kernels compute what OpenVINO could not load."""
    warnings.warn(
        f"OpenVINO cannot load this net ({why}); onnxruntime's own kernels compute it", CaffeconvWarning, stacklevel=3
    )


def report_lines(
    running: Sequence[str], placements: Sequence[Placement] | None, layers: Mapping[str, str], why_not_cuda: str = ""
) -> list[str]:
    """What was chosen, and which layers fell back to the CPU, as lines for people.

    placements: None where onnxruntime does not tell. layers: node → its Caffe layer. why_not_cuda: empty where it was chosen.
    """
    lines = [f"providers: {', '.join(running)}"]
    if running[0] == CPU:
        return [*lines, f"not CUDA, which this onnxruntime has: {why_not_cuda}"] if why_not_cuda else lines
    if placements is None:
        return [*lines, "which nodes are on the CPU, this onnxruntime does not tell"]
    layer_names = {layers.get(placement.node, placement.node) for placement in placements}
    cpu_layers: dict[str, set[str]] = {}
    for placement in placements:
        if placement.provider == CPU:
            cpu_layers.setdefault(layers.get(placement.node, placement.node), set()).add(placement.op_type)
    lines.append(f"{len(layer_names) - len(cpu_layers)} of {len(layer_names)} layers run on {running[0]} whole")
    lines += [f"on the CPU: {layer} ({', '.join(sorted(kinds))})" for layer, kinds in cpu_layers.items()]
    return lines


def layer_of(node: str, layers: Collection[str]) -> str | None:
    """The Caffe layer that a node belongs to, by its name: ``layer``, ``layer/what``, or what onnxruntime makes of it.

    Where one layer's name begins another's (``a`` and ``a/b``), the longer one counts.
    """
    name = node.removeprefix("fused ")  # onnxruntime: GemmActivationFusion and others
    name = re.sub(r"_nchwc$", "", name)  # NchwcTransformer
    while name:
        if name in layers:
            return name
        base_name = re.sub(r"_\d+$", "", name)  # the second node of a layer that writes several tops
        if base_name in layers:
            return base_name
        name = name.rpartition("/")[0]
    return None


MOST_THREADS = 1024


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how to compute; CaffeconvError for what no session takes."""

    provider: Provider
    threads: int | None
    nhwc: bool
    half: bool

    def __post_init__(self) -> None:
        if not isinstance(self.provider, str):
            raise CaffeconvError(f"`provider={self.provider!r}`: {PROVIDERS} was needed")
        if self.threads is not None:
            arguments.whole_number("threads", self.threads, 1, MOST_THREADS)
        arguments.truth("nhwc", self.nhwc)
        arguments.truth("half", self.half)

"""An onnxruntime session whose errors are ours, with our operator library registered where the model uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from caffeconv.errors import CaffeconvError
from caffeconv.runtime.cuda import load_libraries, missing_gpu, why_not_started
from caffeconv.runtime.install import choose_providers, has_cuda, import_onnxruntime
from caffeconv.runtime.integrity import unchanged_files
from caffeconv.runtime.label_checks import label_checks
from caffeconv.runtime.providers import (
    CPU,
    CUDA,
    OPENVINO,
    Placement,
    Provider,
    Providers,
    parse_provider,
    report_fallback,
    report_openvino_failure,
    with_options,
)  # fmt: skip
from caffeconv.tensor.shape import FloatArray

if TYPE_CHECKING:
    import onnxruntime
    from onnx import ModelProto

    from caffeconv.python_layers.host import PythonLayerHost
    from caffeconv.runtime.python_callback import PythonNodes

OPTIMIZED = "optimized.onnx"
"""The model as onnxruntime runs it, in the folder `profile_to`."""
_OPTIMIZED_WEIGHTS = "session.optimized_model_external_initializers_file_name"
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
Feed = FloatArray | NDArray[np.uint8]
_TYPES: Mapping[str, type[np.generic]] = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""onnxruntime's names for what inputs are, other than float32."""
_NODE_NAME = re.compile(r"Name:\s?'([^']*)'")
_CUDA_FAILURE = re.compile(r"(?:CUDA|CUDNN|CUBLAS|CURAND) failure \d+: [^;\n]*[^;\s]")
_STATUS = re.compile(r"Status Message: (.*)", re.DOTALL)


@dataclass(frozen=True)
class SharedModel:
    """A model without its large initializers, which are arrays in this process's memory, by name."""

    model: ModelProto
    initializers: Mapping[str, NDArray[np.generic]]


Result = TypeVar("Result")
Dims: TypeAlias = "dict[str, list[int | str]]"
SessionModel: TypeAlias = "ModelProto | SharedModel | Path"


class Session:
    """A model ready to run.

    ``inputs`` and ``outputs``: name → dims, a symbol where a size is open.

    Args:
        model: the ONNX model as it shall run; a `SharedModel` computes with its initializers where they lie.
        provider: "auto", "cpu", "openvino", "cuda" or "cuda:N". threads: of onnxruntime, for one run.
        python_host: runs the model's Python layers.
        nhwc: on CUDA, prefer kernels that keep channels last.
        needs_cuda: refuse the CPU where CUDA does not start, also with "auto".
        profile_to: a folder for what `end_profiling` gives.
        optimise: whether onnxruntime may rewrite the model while it loads it.

    Raises:
        CaffeconvError: no such provider, no onnxruntime, a model that cannot be loaded.
    """

    def __init__(
        self, model: SessionModel, provider: Provider = "auto", threads: int | None = None, *,
        python_host: PythonLayerHost | None = None, nhwc: bool = False, needs_cuda: bool = False,
        profile_to: Path | None = None, optimise: bool = True,
    ) -> None:  # fmt: skip
        device = parse_provider(provider)
        ort = import_onnxruntime()
        names = choose_providers(provider, ort)
        options = _options(ort, threads, optimise=optimise, profile_to=profile_to)
        if isinstance(model, SharedModel):
            self._initializers = _share(ort, options, model.initializers)  # must live as long as the session
            model = model.model
        library = _our_library(names) if _uses_our_operators(model) else None
        if library is not None:
            options.register_custom_ops_library(library)
        if names[0] == CUDA:
            load_libraries(ort)
        if names[0] != CPU:
            options.add_session_config_entry(_RECORD_PLACEMENT, "1")
        self._python = _python_nodes(model, python_host, library)
        with self._python.called_by_new_kernels() if self._python is not None else nullcontext():
            self._session, failure = _open(ort, model, options, with_options(names, device, threads, nhwc=nhwc))
        if names[0] == CUDA and CUDA not in self.providers:
            why = failure or why_not_started(ort)
            report_fallback(provider, why, allowed=device.kind == "auto" and not (nhwc or needs_cuda))
        if failure and names[0] == OPENVINO:
            report_openvino_failure(failure)
        self._may_take_cuda = device.kind == "auto" and has_cuda(ort)
        self._types, self.inputs = _described(self._session.get_inputs, "inputs")
        _, self.outputs = _described(self._session.get_outputs, "outputs")
        self.metadata: dict[str, str] = _metadata(self._session)
        self._label_checks = label_checks(self.metadata)
        self._constants: Mapping[str, FloatArray] = {}

    def bind_constants(self, constants: Mapping[str, FloatArray]) -> None:
        """Feeds these inputs in every run from now on; nobody else has to, and `inputs` names them no more."""
        self._constants = {**self._constants, **constants}
        self.inputs = {name: dims for name, dims in self.inputs.items() if name not in self._constants}

    @property
    def providers(self) -> list[str]:
        """What the session computes on, first choice first."""
        names: list[str] = self._session.get_providers()
        return names

    @property
    def why_not_cuda(self) -> str:
        """Why CUDA was not chosen, though this onnxruntime has it and nothing else was asked for; empty where it was."""
        return missing_gpu(None) if self._may_take_cuda and self.providers[0] == CPU else ""

    def placements(self) -> list[Placement] | None:
        """Where onnxruntime put each node; None with the CPU alone, and where an onnxruntime is too old to tell."""
        if self.providers[0] == CPU or not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        parts = self._session.get_provider_graph_assignment_info()
        return [Placement(node.name, node.op_type, part.ep_name) for part in parts for node in part.get_nodes()]

    def end_profiling(self) -> Path:
        """onnxruntime's record, as JSON, of what ran since a session with `profile_to` was made."""
        return Path(self._session.end_profiling())

    def kind(self, output: str) -> str:
        """What an output means, as the model says: probabilities, detections, loss, accuracy; empty where it does not."""
        kind = self.metadata.get(f"caffeconv.kind.{output}", "")
        dims = self.outputs.get(output, [])
        if kind == "detections" and (len(dims) != 4 or dims[3] not in (7, str(dims[3]))):
            return ""
        return kind

    def run(
        self, feeds: Mapping[str, Feed], outputs: Sequence[str] | None = None, *, same_pass: bool = False
    ) -> dict[str, FloatArray]:
        """The outputs by name; CaffeconvError names the layer at fault, or a label out of range.

        same_pass: Python layers that have run already give again what they gave. ShapesChangedError says that one made
        other shapes than the model was made for.
        """
        feeds = {**self._constants, **feeds}
        self.check_labels(feeds)
        typed = self._in_their_types(feeds)
        names = list(outputs if outputs is not None else self.outputs)
        values: list[FloatArray] = self._run(lambda session: session.run(names, typed), same_pass=same_pass)
        return {name: _widened(value) for name, value in zip(names, values, strict=True)}

    def check_labels(self, feeds: Mapping[str, Feed]) -> None:
        """Raises CaffeconvError for a label out of range."""
        for check in self._label_checks:
            check.apply(feeds)

    def binding(self) -> onnxruntime.IOBinding:
        """For `run_bound`: which memory the inputs and outputs are in."""
        return self._session.io_binding()

    def run_bound(self, binding: onnxruntime.IOBinding, *, same_pass: bool = False) -> None:
        """As `run`, on float32 values where a binding says that they are; labels are checked by the caller."""
        self._run(lambda session: session.run_with_iobinding(binding), same_pass=same_pass)

    def _run(self, call: Callable[[onnxruntime.InferenceSession], Result], *, same_pass: bool) -> Result:
        if self._python is not None:
            self._python.begin_run(same_pass=same_pass)
        failure: Exception | None = None
        try:
            result = call(self._session)
        except Exception as error:  # onnxruntime's exceptions share no base class
            failure = error
        if self._python is not None:
            self._python.end_run()  # what went wrong in the user's code goes before what onnxruntime makes of it
        if failure is not None:
            raise CaffeconvError(_explain(failure)) from failure
        return result

    def _in_their_types(self, feeds: Mapping[str, Feed]) -> dict[str, NDArray[np.generic]]:
        """What the session takes: float32, float16, or uint8 pictures."""
        kinds = {name: _TYPES.get(self._types.get(name, ""), np.float32) for name in feeds}
        for name, values in feeds.items():
            if kinds[name] is np.uint8:
                _refuse_no_pictures(name, values)
        return {name: np.asarray(values, kinds[name], order="C") for name, values in feeds.items()}


def _options(
    ort: ModuleType, threads: int | None, *, optimise: bool, profile_to: Path | None
) -> onnxruntime.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters arrives as an exception
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads:
        options.intra_op_num_threads = threads
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to / "profile")
        options.optimized_model_filepath = str(profile_to / OPTIMIZED)
        options.add_session_config_entry(_OPTIMIZED_WEIGHTS, "weights")  # beside it: it may hold more than 2 GiB
    return options


def _share(
    ort: ModuleType, options: onnxruntime.SessionOptions, initializers: Mapping[str, NDArray[np.generic]]
) -> Sequence[onnxruntime.OrtValue]:
    """Makes a session with these options compute with the arrays themselves."""
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
    if values:
        options.add_external_initializers(list(initializers), values)
    return values


def _open(
    ort: ModuleType, model: ModelProto | Path, options: onnxruntime.SessionOptions, providers: Providers
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session, and what another provider said where it failed and the CPU took its place; CaffeconvError for a damaged
    model.
    """
    try:
        with unchanged_files(model) if isinstance(model, Path) else nullcontext():
            return _start(ort, str(model) if isinstance(model, Path) else model.SerializeToString(), options, providers)
    except CaffeconvError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        what = model if isinstance(model, Path) else "the model"
        raise CaffeconvError(f"{what}: onnxruntime cannot load it: {_first_line(error)}") from error


def _start(
    ort: ModuleType, content: str | bytes, options: onnxruntime.SessionOptions, providers: Providers
) -> tuple[onnxruntime.InferenceSession, str]:
    try:
        # onnxruntime's own way of falling back prints to standard output
        return ort.InferenceSession(content, options, providers=providers, enable_fallback=0), ""
    except Exception as error:  # onnxruntime's exceptions share no base class
        if providers[0][0] == CPU:
            raise
        session = ort.InferenceSession(content, options, providers=providers[1:], enable_fallback=0)
        if providers[0][0] == OPENVINO:
            return session, str(error).strip().splitlines()[-1]  # its own words come after onnxruntime's
        reason = _CUDA_FAILURE.search(str(error))
        return session, reason.group() if reason else _first_line(error)


def _described(values: Callable[[], Sequence[onnxruntime.NodeArg]], what: str) -> tuple[dict[str, str], Dims]:
    """Types and dims by name; CaffeconvError for what is no tensor, or of a name that is no text."""
    try:
        arguments = [(value.name, str(value.type), list(value.shape)) for value in values()]
    except UnicodeDecodeError:
        raise CaffeconvError(
            f"the model's {what} have names that are no UTF-8; a whole ONNX model was needed"
        ) from None
    for name, kind, _ in arguments:
        if not kind.startswith("tensor("):
            raise CaffeconvError(f"the model's {what}: '{name}' is a {kind}; a tensor was needed")
    return {name: kind for name, kind, _ in arguments}, {name: dims for name, _, dims in arguments}


def _metadata(session: onnxruntime.InferenceSession) -> dict[str, str]:
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError:
        raise CaffeconvError("the model's metadata is no UTF-8; a whole ONNX model was needed") from None


def _widened(value: NDArray[np.generic]) -> FloatArray:
    """float16 as float32, in which everything that holds results works; anything else as it is."""
    return value.astype(np.float32) if value.dtype == np.float16 else cast("FloatArray", value)


def _refuse_no_pictures(name: str, values: Feed) -> None:
    """Raises CaffeconvError for values that uint8 does not hold, which a conversion would wrap without a word."""
    if values.dtype == np.uint8:
        return
    wrong = values[~((values >= 0) & (values <= 255) & (values == np.floor(values)))]
    if not wrong.size:
        return
    raise CaffeconvError(
        f"input '{name}' takes pictures, whole numbers from 0 to 255, and holds {wrong.flat[0]:g}; the model subtracts the "
        "mean and scales by itself. Give the pictures as they are"
    )


def _uses_our_operators(model: ModelProto | Path) -> bool:
    if isinstance(model, Path):
        return True
    return any(node.domain == "caffeconv" for node in model.graph.node)


def _our_library(providers: Sequence[str]) -> str | None:
    """Our operators' library, with CUDA kernels where they are of use; None where it was not built."""
    import caffeconv.ops as ops

    try:
        return (ops.cuda_library_path() if providers[0] == CUDA else None) or ops.library_path()
    except CaffeconvError:
        return None  # the model's own functions do the same, more slowly


def _python_nodes(
    model: ModelProto | Path, python_host: PythonLayerHost | None, library: str | None
) -> PythonNodes | None:
    """What runs the model's Python layers; None where it has none, or nothing may run them."""
    if python_host is None or isinstance(model, Path):
        return None
    if not any(node.domain == "caffeconv" and node.op_type.startswith("Python") for node in model.graph.node):
        return None
    import caffeconv.ops as ops
    from caffeconv.runtime.python_callback import PythonNodes

    return PythonNodes(model, python_host, library or ops.library_path())


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _explain(error: Exception) -> str:
    """onnxruntime's message with the layer's name first and its source paths left out."""
    text = str(error).strip()
    name, status = _NODE_NAME.search(text), _STATUS.search(text)
    message = (status.group(1) if status else _first_line(error)).strip().splitlines()[0]
    message = re.sub(r"^\S+\.(?:cc|h):\d+ .*?(?=\S+ was false|\w)", "", message) if ".cc:" in message else message
    return f"{name.group(1)}: {message}" if name else message

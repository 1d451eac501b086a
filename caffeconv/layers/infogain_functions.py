"""The operators of domain ``caffeconv`` spelled out in standard ONNX, as model-local functions.

A node ``caffeconv.InfogainLoss`` whose model carries the function runs in any onnxruntime; where the custom-op library
is registered, onnxruntime takes the fused kernel instead. Both give the same result for legal labels. A label outside
0..C-1 is an error for the kernel; ONNX can raise none, so the function answers NaN.

The attributes of :func:`infogain_attributes` belong on the node, for the kernel. A function's body is written for one
set of them, so nodes that differ get functions that differ in ``overload`` (IR version 10), the same on node and
function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["DOMAIN", "infogain_attributes", "infogain_loss_function", "infogain_loss_grad_function"]

DOMAIN = "caffeconv"
NORMALIZATIONS = ("FULL", "VALID", "BATCH_SIZE", "NONE")

_ATTRIBUTES = ("axis", "normalization", "has_ignore_label", "ignore_label", "bottom")
_THRESHOLD = np.float32(1e-20)  # caffe: kLOG_THRESHOLD
_LOG_THRESHOLD = np.float32(np.log(1e-20))


def infogain_attributes(
    *, axis: int, normalization: str, ignore_label: int | None, probabilities: bool
) -> dict[str, int | str]:
    """The attributes of a node ``InfogainLoss`` or ``InfogainLossGrad``.

    axis: where the classes are, counted from the front. normalization: FULL, VALID, BATCH_SIZE or NONE, Caffe's
    defaults already resolved. ignore_label: compared with the label after truncation towards zero. probabilities: the
    scores are probabilities, as before 2017.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization {normalization!r} is none of {', '.join(NORMALIZATIONS)}")
    if axis < 0:
        raise ValueError(f"axis {axis} must be counted from the front")
    return {
        "axis": axis,
        "normalization": normalization,
        "has_ignore_label": int(ignore_label is not None),
        "ignore_label": 0 if ignore_label is None else ignore_label,
        "bottom": "probabilities" if probabilities else "logits",
    }


class _Body:
    """Nodes of a function, appended in order; every method returns the name of its result."""

    def __init__(self, opset: int) -> None:
        if opset < 13:
            raise ValueError(f"opset {opset} is too old; the functions need 13 or later")
        self.opset = opset
        self.nodes: list[NodeProto] = []

    def op(
        self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: int | Sequence[int] | TensorProto
    ) -> str:
        output = name or f"{op_type}_{len(self.nodes)}"
        node = helper.make_node(op_type, list(inputs), [output])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output

    def constant(self, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | np.generic) -> str:
        return self.op("Constant", [], value=numpy_helper.from_array(np.asarray(value)))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def int_scalar(self, value: int) -> str:
        return self.constant(np.int64(value))

    def cast(self, value: str, to: int) -> str:
        return self.op("Cast", [value], to=to)

    def cast_like(self, value: str, like: str, name: str = "") -> str:
        if self.opset >= 15:
            return self.op("CastLike", [value, like], name)
        return self.op("Identity", [value], name)

    def sum(self, value: str, *axes: int, keepdims: int = 0) -> str:
        inputs = [value, self.ints(*axes)] if axes else [value]
        return self.op("ReduceSum", inputs, keepdims=keepdims)

    def reshape(self, value: str, shape: str) -> str:
        # allowzero: an empty batch stays empty instead of copying a dimension of the input
        if self.opset >= 14:
            return self.op("Reshape", [value, shape], allowzero=1)
        return self.op("Reshape", [value, shape])


class _Problem:
    """What loss and gradient share: scores as rows (M, C), labels (M,), the rows of H (M, C), and the normalizer."""

    def __init__(
        self,
        body: _Body,
        *,
        rank: int,
        axis: int,
        normalization: str,
        ignore_label: int | None,
        num_classes: int | None,
    ) -> None:
        if not 0 <= axis < rank:
            raise ValueError(f"axis {axis} is outside 0..{rank - 1}")
        self.body = body
        self.to_rows = [i for i in range(rank) if i != axis] + [axis]
        self.scores = body.cast("scores", TensorProto.FLOAT)
        dims = body.op("Shape", [self.scores])
        if num_classes is None:
            self.classes = body.op("Gather", [dims, body.ints(axis)])
        else:
            self.classes = body.ints(num_classes)
        # Labels and H are reshaped to what they must be: a wrong count is an error, not a broadcast.
        self.rows_dims = dims if axis == rank - 1 else body.op("Gather", [dims, body.ints(*self.to_rows)])
        predictions_dims = body.op("Gather", [self.rows_dims, body.ints(*range(rank - 1))])
        predictions = body.op("ReduceProd", [predictions_dims], keepdims=1) if rank > 1 else body.ints(1)
        self.matrix_dims = body.op("Concat", [predictions, self.classes], axis=0)
        labels = body.cast(body.reshape("labels", predictions), TensorProto.INT64)  # truncates towards zero
        h = body.reshape("H", body.op("Concat", [self.classes, self.classes], axis=0))

        legal = body.op(
            "And",
            [
                body.op("Not", [body.op("Less", [labels, body.int_scalar(0)])]),
                body.op("Less", [labels, self.classes]),
            ],
        )
        zero = body.int_scalar(0)
        self.ignored: str | None = None
        if ignore_label is None:
            self.illegal = body.op("Not", [legal])
            used = body.op("Where", [legal, labels, zero])
        else:
            self.ignored = body.op("Equal", [labels, body.int_scalar(ignore_label)])
            counted = body.op("Not", [self.ignored])
            self.illegal = body.op("And", [counted, body.op("Not", [legal])])
            used = body.op("Where", [body.op("And", [counted, legal]), labels, zero])
        self.h_rows = body.op("Gather", [h, used], axis=0)

        one = body.constant(np.float64(1))
        if normalization == "NONE":
            self.normalizer = one
            return
        if normalization == "BATCH_SIZE":
            outer = body.op("Gather", [dims, body.ints(*range(axis))]) if axis else body.ints(1)
            count = body.op("ReduceProd", [outer], keepdims=0)
        elif normalization == "VALID" and self.ignored is not None:
            count = body.sum(body.cast(body.op("Not", [self.ignored]), TensorProto.INT64), 0)
        else:
            count = body.op("ReduceProd", [predictions], keepdims=0)
        self.normalizer = body.op("Max", [body.cast(count, TensorProto.DOUBLE), one])

    def rows(self, value: str) -> str:
        """(…, C, …) → (M, C)"""
        if self.to_rows != list(range(len(self.to_rows))):
            value = self.body.op("Transpose", [value], perm=self.to_rows)
        return self.body.reshape(value, self.matrix_dims)

    def from_rows(self, value: str) -> str:
        """(M, C) → (…, C, …)"""
        value = self.body.reshape(value, self.rows_dims)
        if self.to_rows == list(range(len(self.to_rows))):
            return value
        return self.body.op("Transpose", [value], perm=np.argsort(self.to_rows).tolist())

    def marked(self, value: str, *, as_column: bool) -> str:
        """value (M,) or (M, C), 0 where the label is ignored and NaN where it is illegal."""
        body = self.body

        def column(mask: str) -> str:
            return body.op("Unsqueeze", [mask, body.ints(1)]) if as_column else mask

        value = body.op("Where", [column(self.illegal), body.constant(np.float32(np.nan)), value])
        if self.ignored is None:
            return value
        return body.op("Where", [column(self.ignored), body.constant(np.float32(0)), value])


def _at_least(body: _Body, value: str, bound: np.float32) -> str:
    # Where instead of Max: NaN stays NaN in every runtime, as in Caffe's std::max(prob, kLOG_THRESHOLD).
    limit = body.constant(bound)
    return body.op("Where", [body.op("Less", [value, limit]), limit, value])


def _add_loss(problem: _Problem, rows: str, *, probabilities: bool) -> None:
    """The nodes that end in `loss`."""
    body = problem.body
    if probabilities:
        log_p = body.op("Log", [_at_least(body, rows, _THRESHOLD)])
    else:
        log_p = _at_least(body, body.op("LogSoftmax", [rows], axis=1), _LOG_THRESHOLD)
    losses = body.op("Neg", [body.sum(body.op("Mul", [problem.h_rows, log_p]), 1)])
    # In double: Caffe's own float32 sum over a million pixels is off by percents.
    total = body.sum(body.cast(problem.marked(losses, as_column=False), TensorProto.DOUBLE), 0)
    body.op("Cast", [body.op("Div", [total, problem.normalizer])], "loss", to=TensorProto.FLOAT)


def _function(name: str, overload: str, inputs: list[str], outputs: list[str], body: _Body) -> FunctionProto:
    return helper.make_function(
        DOMAIN,
        name,
        inputs,
        outputs,
        body.nodes,
        [helper.make_opsetid("", body.opset)],
        attributes=list(_ATTRIBUTES),
        overload=overload,
    )


def infogain_loss_function(
    overload: str,
    *,
    rank: int,
    axis: int,
    normalization: str,
    ignore_label: int | None,
    num_classes: int | None,
    probabilities: bool,
    with_prob: bool,
    opset: int,
) -> FunctionProto:
    """``InfogainLoss(scores, labels, H) -> (loss[, prob])`` in standard operators (caffe: infogain_loss_layer.cpp).

    scores: float32 or float16, `rank` axes, classes on `axis`; every dimension may be dynamic. labels: float32, as many
    elements as there are predictions, any shape. H: float32, C·C elements, any shape. loss: float32, shape []; prob: as
    scores, the softmax (of `probabilities`, the scores themselves). NaN where a label is outside 0..C-1.

    The node lists both outputs exactly where `with_prob`; it carries ``infogain_attributes(...)`` and the same
    overload. The model needs IR version 10 and imports domain ``caffeconv`` version 1. float16 scores need opset 15.
    """
    body = _Body(opset)
    problem = _Problem(
        body, rank=rank, axis=axis, normalization=normalization, ignore_label=ignore_label, num_classes=num_classes
    )
    rows = problem.rows(problem.scores)
    _add_loss(problem, rows, probabilities=probabilities)
    if not with_prob:
        return _function("InfogainLoss", overload, ["scores", "labels", "H"], ["loss"], body)

    prob = problem.scores if probabilities else body.op("Softmax", [problem.scores], axis=axis)
    body.cast_like(prob, "scores", "prob")
    return _function("InfogainLoss", overload, ["scores", "labels", "H"], ["loss", "prob"], body)


def infogain_loss_grad_function(
    overload: str,
    *,
    rank: int,
    axis: int,
    normalization: str,
    ignore_label: int | None,
    num_classes: int | None,
    probabilities: bool,
    opset: int,
    with_loss: bool = False,
) -> FunctionProto:
    """``InfogainLossGrad(scores, labels, H, loss_diff) -> (scores_diff[, loss])`` in standard operators.

    loss_diff: float32 scalar, the gradient that arrives at the loss (Caffe: its loss_weight). scores_diff: as scores; 0
    in rows whose label is ignored, NaN in rows whose label is outside 0..C-1. loss: that of InfogainLoss; the kernel
    takes both in one pass. The rest is as in infogain_loss_function.
    """
    body = _Body(opset)
    problem = _Problem(
        body, rank=rank, axis=axis, normalization=normalization, ignore_label=ignore_label, num_classes=num_classes
    )
    rows = problem.rows(problem.scores)
    if probabilities:
        slopes = body.op("Neg", [body.op("Div", [problem.h_rows, _at_least(body, rows, _THRESHOLD)])])
    else:
        # The row sum, not 1: rows of H need not sum to one. No clamp here (caffe: Backward_cpu).
        pull = body.op("Mul", [body.op("Softmax", [rows], axis=1), body.sum(problem.h_rows, 1, keepdims=1)])
        slopes = body.op("Sub", [pull, problem.h_rows])
    scalar = body.reshape("loss_diff", body.constant(np.array([], np.int64)))
    scale = body.op("Div", [body.cast(scalar, TensorProto.DOUBLE), problem.normalizer])
    scaled = body.op("Mul", [slopes, body.cast(scale, TensorProto.FLOAT)])
    body.cast_like(problem.from_rows(problem.marked(scaled, as_column=True)), "scores", "scores_diff")
    if with_loss:
        _add_loss(problem, rows, probabilities=probabilities)
    outputs = ["scores_diff", "loss"] if with_loss else ["scores_diff"]
    return _function("InfogainLossGrad", overload, ["scores", "labels", "H", "loss_diff"], outputs, body)

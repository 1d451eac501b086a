"""`caffe.Detector`: classifies windows of pictures (caffe: python/caffe/detector.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn, TypedDict

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike
from caffeconv.pycaffe import io
from caffeconv.pycaffe.classifier import TEST, transformer_for
from caffeconv.pycaffe.net import Net
from caffeconv.tensor.shape import FloatArray

Window = Sequence[float]
"""ymin, xmin, ymax, xmax, in pixels."""


class Detection(TypedDict):
    """The net's prediction for one window."""

    window: Window
    prediction: FloatArray
    filename: PathLike


class Detector(Net):
    """A net that classifies windows of pictures, each of them warped to the net's input.

    Args:
        model_file, pretrained_file: deploy prototxt and weights.
        mean, input_scale, raw_scale, channel_swap: as of io.Transformer.
        context_pad: so many pixels at each border of the input show what lies around the window, as in R-CNN; where
            that is outside the picture, the mean.

    Raises as `Net` and io.Transformer.
    """

    def __init__(
        self, model_file: PathLike, pretrained_file: PathLike, mean: FloatArray | None = None,
        input_scale: float | None = None, raw_scale: float | None = None, channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[PathLike, Iterable[Window]]]) -> list[Detection]:
        """A detection for each window, in order; `images_windows` are picture files, each with its windows.

        Raises CaffeconvError for a picture that cannot be read, or a window without pixels.
        """
        file_windows = [(file, window) for file, windows in images_windows for window in windows]
        if not file_windows:
            return []
        name = self.inputs[0]
        images = {file: io.load_image(file) for file in dict.fromkeys(file for file, _ in file_windows)}
        crops = [self.transformer.preprocess(name, self.crop(images[file], window)) for file, window in file_windows]
        predictions = self.forward_all(**{name: np.stack(crops)})[self.outputs[0]]  # type: ignore[arg-type]
        return [
            Detection(window=window, prediction=prediction, filename=file)
            for (file, window), prediction in zip(file_windows, predictions, strict=True)
        ]

    def detect_selective_search(self, image_fnames: Sequence[str]) -> NoReturn:
        """Raises CaffeconvError: the windows came from a MATLAB program."""
        raise CaffeconvError(
            "detect_selective_search: the windows came from selective_search_ijcv_with_python, a MATLAB program beside "
            "Caffe, which is not here. Find windows by other means (OpenCV's contrib package has a selective search) "
            "and give them to detect_windows"
        )

    def crop(self, im: FloatArray, window: Window) -> FloatArray:
        """The window of a picture H×W×K, with what lies around it where `context_pad` says so."""
        ymin, xmin, ymax, xmax = (int(edge) for edge in window)
        crop = im[max(ymin, 0) : ymax, max(xmin, 0) : xmax]
        if not crop.size:
            raise CaffeconvError(
                f"window {tuple(window)} has no pixels in a picture of {im.shape[0]}×{im.shape[1]}; "
                "(ymin, xmin, ymax, xmax) was needed"
            )
        return self._with_context(im, np.array(window, np.float64)) if self.context_pad else crop

    def _with_context(self, im: FloatArray, window: FloatArray) -> FloatArray:
        size = self.blobs[self.inputs[0]].width  # caffe: assumes a square
        scale = size / (size - self.context_pad * 2)
        half = (window[2:] - window[:2] + 1) / 2
        centre = window[:2] + half
        box = np.round(np.concatenate([centre - scale * half, centre + scale * half]))
        zoom = size / (box[2:] - box[:2] + 1)
        pad_y, pad_x = (round(float(pad)) for pad in np.maximum(0, -box[:2]) * zoom)
        top, left, bottom, right = np.clip(box, 0, [*im.shape[:2], *im.shape[:2]]).astype(int)
        height = min(round(float((bottom - top + 1) * zoom[0])), size - pad_y)
        width = min(round(float((right - left + 1) * zoom[1])), size - pad_x)
        context = io.resize_image(im[top:bottom, left:right], (height, width))
        crop: FloatArray = np.ones(self.crop_dims, np.float32) * self.crop_mean
        crop[pad_y : pad_y + height, pad_x : pad_x + width] = context
        return crop

    def configure_crop(self, context_pad: int | None) -> None:
        """Sets how much context windows have, and the mean that stands in for what there is none of."""
        name = self.inputs[0]
        order = np.argsort(self.transformer.transpose[name])
        self.crop_dims = np.array(self.blobs[name].shape[1:])[order]
        self.context_pad = context_pad or 0
        self.crop_mean: FloatArray = np.zeros(self.crop_dims, np.float32)
        mean = self.transformer.mean.get(name)
        if not self.context_pad or mean is None:
            return
        as_image = mean.transpose(order)
        if (swap := self.transformer.channel_swap.get(name)) is not None:
            as_image = as_image[:, :, np.argsort(swap)]
        self.crop_mean = as_image / np.float32(self.transformer.raw_scale.get(name, 1))

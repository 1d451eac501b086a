"""`caffe.Classifier`: pictures to class probabilities (caffe: python/caffe/classifier.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffeconv.errors import CaffeconvError
from caffeconv.files.atomic import PathLike
from caffeconv.pycaffe import io
from caffeconv.pycaffe.net import Net
from caffeconv.tensor.shape import FloatArray

TEST = 1


def transformer_for(
    net: Net, mean: FloatArray | None, input_scale: float | None, raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:  # fmt: skip
    """A Transformer for a net's first input, that takes pictures H×W×K; CaffeconvError where the net has no input."""
    if not net.inputs:
        raise CaffeconvError("the net has no input, it reads its own data; a deploy prototxt was needed")
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer


class Classifier(Net):
    """A net that classifies pictures.

    Args:
        model_file, pretrained_file: deploy prototxt and weights.
        image_dims: height and width that pictures are resized to before they are cropped to the net's input; by default
            the input's own.
        mean, input_scale, raw_scale, channel_swap: as of io.Transformer.

    Raises as `Net` and io.Transformer.
    """

    def __init__(
        self, model_file: PathLike, pretrained_file: PathLike, image_dims: Sequence[int] | None = None,
        mean: FloatArray | None = None, input_scale: float | None = None, raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        dims = self.crop_dims if image_dims is None or not len(image_dims) else image_dims
        self.image_dims = tuple(int(size) for size in dims)

    def predict(self, inputs: Sequence[FloatArray], oversample: bool = True) -> FloatArray:
        """N×C: the net's first output for each image (H×W×K, as io.load_image gives them).

        oversample: the mean over ten crops; without it, the centre only.
        """
        if not len(inputs):
            raise CaffeconvError("predict: at least one picture was needed, as a list of arrays H×W×K")
        resized = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        crops = io.oversample(list(resized), self.crop_dims.tolist()) if oversample else self._centre_crops(resized)
        name = self.inputs[0]
        batch = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        outputs = self.forward_all(**{name: batch})  # type: ignore[arg-type]
        predictions = outputs[self.outputs[0]]
        return predictions.reshape(len(predictions) // 10, 10, -1).mean(1) if oversample else predictions

    def _centre_crops(self, images: FloatArray) -> FloatArray:
        """N×H×W×K cropped to the net's input."""
        centre = np.array(self.image_dims) / 2.0
        top, left = (centre - self.crop_dims / 2.0).astype(int)
        bottom, right = (centre + self.crop_dims / 2.0).astype(int)
        return images[:, top:bottom, left:right, :]

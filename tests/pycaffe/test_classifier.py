"""caffe.Classifier over the digits, and what it does by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.golden_cases import ROOT
from support.small_nets import Array

import caffeconv
import caffeconv.pycaffe as caffe

DIGITS = ROOT / "fixtures" / "digits"
NET, WEIGHTS = str(DIGITS / "deploy.prototxt"), str(DIGITS / "digits.caffemodel")
LAYERS = ROOT / "fixtures" / "goldens" / "layers"


def enlarged(digit: int) -> Array:
    return caffe.io.load_image(DIGITS / f"{digit}.png", color=False)


def test_classifier_centre() -> None:
    classifier = caffe.Classifier(NET, WEIGHTS, raw_scale=255)
    scores = classifier.predict([enlarged(digit) for digit in range(10)], oversample=False)
    assert scores.shape == (10, 10)
    assert scores.argmax(1).tolist() == list(range(10))


def test_classifier_oversamples() -> None:
    classifier = caffe.Classifier(
        NET, WEIGHTS, image_dims=(32, 30), raw_scale=255, mean=np.array([5.0]), input_scale=0.9
    )
    images = [enlarged(3), enlarged(7)]
    by_hand = []
    for image in images:
        crops = caffe.io.oversample([caffe.io.resize_image(image, (32, 30))], (28, 28))
        fed = (crops.transpose(0, 3, 1, 2) * 255 - 5) * np.float32(0.9)
        by_hand.append(classifier.forward_all(data=fed)["prob"].mean(0))
    np.testing.assert_allclose(classifier.predict(images), by_hand, rtol=1e-4, atol=1e-6)
    centre = caffe.io.resize_image(images[0], (32, 30))[2:30, 1:29].transpose(2, 0, 1)[None]
    want = classifier.forward(data=(centre * 255 - 5) * np.float32(0.9))["prob"]
    np.testing.assert_allclose(classifier.predict(images[:1], oversample=False), want, rtol=1e-4, atol=1e-6)


def test_classifier_without_an_input() -> None:
    case = LAYERS / "data_lmdb_raw"
    with pytest.raises(caffeconv.CaffeconvError, match="the net has no input, it reads its own data"):
        caffe.Classifier(case / "net.prototxt", Path(WEIGHTS))
    with pytest.raises(caffeconv.CaffeconvError, match="at least one picture"):
        caffe.Classifier(NET, WEIGHTS).predict([])

"""What a person is told of a prototxt that does not parse: the mistake, not its place alone; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffeconv.caffe_format.prototxt import read_prototxt
from caffeconv.errors import CaffeconvError

DATA = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } }\n'


def said(folder: Path, text: str) -> str:
    path = folder / "net.prototxt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CaffeconvError) as caught:
        read_prototxt(path)
    return str(caught.value).replace(f"{folder}/", "")


def one_layer(fields: str) -> str:
    return f'{DATA}layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" {fields} }}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DATA + 'layer {\n name: "c"\nlayer { name: "r" }\n',
         "net.prototxt:4:1: expected `}` before the next layer, found `layer`; the `layer {` of line 2 is not closed"),
        (DATA + "layer {\n convolution_param {\n num_output: 3\n }\n",
         "found the end of the file; the `layer {` of line 2 is not closed"),
        (DATA + "}\n", "2:1: expected a field name, found `}`; everything before it is closed, so there is one too many"),
        (DATA + 'layer { name: "c\n }', 'found `"`; the quote that opens here is not closed in this line'),
        (DATA + "layer { name: \u201cc\u201d }", "these are curly quotes of a word processor"),
        ("// LeNet\n" + DATA, "1:1: expected a field name, found `/`; a comment begins with `#`"),
        (DATA + 'layers { name: "s" type: "Softmax" }',
         "`layers {` is the old form of `layer {`: write `layer` in line 2, or the old form's SOFTMAX without quotes"),
        ("layer { type: INNER_PRODUCT }", 'found `INNER_PRODUCT`; write "InnerProduct" in quotes'),
        ("layer { type: RELU }", 'write "ReLU" in quotes'),
        ("layer { name: x }", 'found `x`; write "x" in quotes'),
        (one_layer("num_output: 3"), "has no field named `num_output`; it belongs in `convolution_param { … }`"),
        (one_layer("inner_product_param { stride: 2 }"),
         "InnerProductParameter has no field named `stride`; it is a field of convolution_param, pooling_param"),
        (one_layer("convolution_param { num_output: $N$ }"), "found `$`; this is a template's place holder"),
        (one_layer("convolution_param { num_output: {{n}} }"), "found `{`; this is a template's place holder"),
        (one_layer("convolution_param { num_output: cls3x }"), "found `cls3x`; this looks like a template's place holder"),
        (one_layer('pooling_param { pool: "MAX" }'), 'found `"MAX"`; write MAX without quotes'),
        (one_layer('pooling_param { stride: "2" }'), 'found `"2"`; write 2 without quotes'),
        (one_layer("convolution_param { pad: 1, 2 }"), "found `2`; several values are given as `[1, 2]`"),
        ('name = "n"', "found `=`; a value stands behind `:`, not behind `=`"),
        (one_layer("input_param { shape { dim: 1 3 8 8 } }"),
         "found `3`; several values are given as `[1, 2]`, or each behind"),
        (one_layer("input_param { shape: [1, 3] }"),
         "found `1`; `shape` is a block with fields of its own: `shape { dim: … }`"),
        (one_layer("include: TEST"), "found `TEST`; `include` is a block with fields of its own: `include { phase: … }`"),
        (one_layer("convolution_param { pad: same }"), "found `same`; Caffe pads by numbers: 0 is `valid`"),
        (one_layer("convolution_param { bias_term: FALSE }"), "found `FALSE`; write false"),
        (one_layer("convolution_param { kernel: 3 }"), "no field named `kernel`; did you mean `kernel_size`?"),
        (DATA + "<<<<<<< HEAD\n", "a mark of a merge that was not resolved"),
        (DATA + "=======\n", "a mark of a merge that was not resolved"),
        (DATA + "<!-- conv -->\n", "found `<`; a comment begins with `#`"),
        ("--- a/net\n+" + DATA, "this is a patch, to be applied to a prototxt"),
        ("1: " + DATA, "1:1: expected a field name, found `1`; these seem to be the line numbers of a listing"),
        (DATA + "...\n" + DATA, "found `.`; something was left out here"),
        (DATA + "layer (", "found `(`; blocks stand in `{ … }`"),
        ("layer { name\uff1a 'c' }", "found `\uff1a`; `:` was needed, which looks alike"),
        (one_layer("convolution_param { num_output: 4.0 }"), "num_output: expected an integer, found `4.0`; write 4"),
        (one_layer("convolution_param { num_output: -4 }"), "found `-4`"),
        (one_layer("convolution_param { num_output: CLASSES }"), "found `CLASSES`; this looks like a template's place"),
        (one_layer("blobs_lr: 1"), "`blobs_lr`; the old form's blobs_lr is lr_mult today, and belongs in `param { … }`"),
        (one_layer("decay_mult: 0"), "`decay_mult`; it belongs in `param { … }`, one for each parameter"),
        (one_layer('stage: "fit"'), "`stage`; it belongs in `include { … }`"),
        (one_layer("convolution_param { std: 0.1 }"), "`std`; it belongs in `weight_filler { … }`"),
        (DATA + "base_lr: 0.1\n", "`base_lr`; it is a field of a solver's file, not of a net"),
        (DATA + 'bottom: "data"\n', "`bottom`; it belongs in a `layer { … }`"),
        (DATA + "num_output: 3\n", "`num_output`; it belongs in a `layer { … }`"),
    ],
)  # fmt: skip
def test_the_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in said(tmp_path, text)


def test_one_fault_of_each_layer_is_told(tmp_path: Path) -> None:
    text = (
        DATA
        + 'layer { name: "c type: "ReLU" }\nlayer { pooling_param { pool: MAXX } }\n'
        + DATA
        + "layer { name: 3 }\n"
    )
    lines = said(tmp_path, text).splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "5"]


def test_no_more_faults_than_a_person_reads(tmp_path: Path) -> None:
    assert len(said(tmp_path, "layer { name: 3 }\n" * 50).splitlines()) == 10

"""What the layers of forks in random nets are drawn from: every type of the table that no file and no chance decides."""

from __future__ import annotations

from collections.abc import Callable

from support.random_layers import (
    BOTH,
    FILLER,
    POSITIVE,
    UNIFORM,
    Kind,
    Layout,
    Sketch,
    convolution,
    one,
    times,
    window,
)


def _spatial(sketch: Sketch, axes: int = 4) -> tuple[str, tuple[int, ...]]:
    x = sketch.blob(axes)
    return x, sketch.shape(x)


def _over(axes: int, fields: Callable[[Sketch, tuple[int, ...]], str], *, tops: int = 1) -> Kind:
    """A layer over a blob of so many axes; its fields may look at the shape."""

    def drawn(sketch: Sketch) -> Layout:
        x, shape = _spatial(sketch, axes)
        return fields(sketch, shape), [x], tops

    return drawn


def _either(*kinds: Kind) -> Kind:
    return lambda sketch: kinds[sketch.number(0, len(kinds) - 1)](sketch)


# -- normalisation -----------------------------------------------------------------------------------------------------


def _bn(sketch: Sketch) -> Layout:
    x = sketch.blob()
    if sketch.chance():
        mode = sketch.few("LEARN", "INFERENCE")
        fields = sketch.fields("bn_param", bn_mode=mode, scale_filler=POSITIVE, shift_filler=UNIFORM)
        return fields, [x], sketch.number(1, 3) if mode == "LEARN" else 1
    fields = sketch.fields(
        "bn_param", frozen=BOTH, eps=(None, 0.01), momentum=(0.9, 0.5), icnet=(None, None, "true"), slope_filler=POSITIVE,
        bias_filler=UNIFORM,
    )  # fmt: skip
    return fields, [x], 1


def _normalize_of_ssd(sketch: Sketch) -> Layout:
    fields = sketch.fields(
        "norm_param", across_spatial=BOTH, channel_shared=BOTH, eps=(None, 0.1), add_eps_before_sqrt=(None, *BOTH),
        scale_filler=(None, POSITIVE),
    )  # fmt: skip
    return fields, [sketch.blob()], 1


def _normalize_of_happynear(sketch: Sketch) -> Layout:
    return sketch.fields("normalize_param", normalize_type=('"L1"', '"L2"')), [sketch.blob()], sketch.number(1, 2)


def _dense_block(sketch: Sketch, shape: tuple[int, ...]) -> str:
    pads = [sketch.number(0, 1) for _ in "hw"]
    sizes = " ".join(f"pad_{a}: {pad} filter_{a.upper()}: {2 * pad + 1}" for a, pad in zip("hw", pads, strict=True))
    fillers = f"Filter_Filler {UNIFORM} BN_Scaler_Filler {POSITIVE} BN_Bias_Filler {UNIFORM}"
    numbers = f"numTransition: {sketch.number(1, 2)} growthRate: {sketch.number(1, 2)} use_BC: {sketch.few(*BOTH)}"
    return f"denseblock_param {{ {numbers} {sizes} {fillers} }}"


# -- windows -----------------------------------------------------------------------------------------------------------


def _convolution_3d(sketch: Sketch) -> Layout:
    x = sketch.blob(5)
    name = sketch.few("convolution3d_param", "convolution_param")
    return f"{name} {{ num_output: {sketch.number(1, 3)} {_window_3d(sketch)} {FILLER} }}", [x], 1


def _window_3d(sketch: Sketch, pad: int = 1) -> str:
    ranges = {
        "kernel_size": (1, 3),
        "kernel_depth": (1, 3),
        "stride": (1, 2),
        "temporal_stride": (1, 2),
        "pad": (0, pad),
    }
    return " ".join(f"{name}: {sketch.number(*ends)}" for name, ends in ranges.items())


def _deconvolution_3d(sketch: Sketch) -> Layout:
    bias = sketch.few("", "convolution_param { bias_term: false }")
    fields = f"num_output: {sketch.number(1, 3)} temporal_pad: {sketch.number(0, 1)} {_window_3d(sketch)} {FILLER}"
    return f"convolution3d_param {{ {fields} }} {bias}", [sketch.blob(5)], 1


def _pooling_3d(sketch: Sketch) -> Layout:
    method, name = sketch.few("MAX", "AVE"), sketch.few("pooling3d_param", "pooling_param")
    sizes = _window_3d(sketch, pad=1 if method == "AVE" else 0)
    return f"{name} {{ pool: {method} {sizes} }}", [sketch.blob(5)], 1


def _windowed(message: str, *, dilates: bool) -> Kind:
    def fields(sketch: Sketch, shape: tuple[int, ...]) -> str:
        bias = sketch.few("", "bias_term: false")
        return f"{message} {{ num_output: {sketch.number(1, 3)} {window(sketch, 2, dilates=dilates)} {bias} {FILLER} }}"

    return _over(4, fields)


def _deformable(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    reach, dilation = sketch.number(0, 1), sketch.number(1, 2)
    group = int(sketch.few(*(g for g in (1, 2) if shape[1] % g == 0)) or 1)
    deformable = int(sketch.few(*(g for g in (1, 2, 4) if shape[1] % g == 0)) or 1)
    sizes = f"kernel_size: {2 * reach + 1} pad: {reach * dilation} dilation: {dilation}"
    groups = f"num_output: {2 * sketch.number(1, 2)} group: {group} deformable_group: {deformable}"
    bias = sketch.few("", "bias_term: false")
    offsets = sketch.like((shape[0], 2 * (2 * reach + 1) ** 2 * deformable, *shape[2:]))
    return f"deformable_convolution_param {{ {groups} {sizes} {bias} {FILLER} }}", [x, offsets], 1


def _quantized(kind: Kind) -> Kind:
    """The layer of that kind in few bits."""

    def drawn(sketch: Sketch) -> Layout:
        fields, bottoms, tops = kind(sketch)
        parts = ("layer_in", "layer_out", "params")
        precision = sketch.few("DYNAMIC_FIXED_POINT", "MINIFLOAT", "INTEGER_POWER_OF_2_WEIGHTS")
        bits = " ".join(f"bw_{part}: {sketch.few(4, 8)} fl_{part}: {sketch.number(1, 4)}" for part in parts)
        mini = f"mant_bits: {sketch.number(2, 5)} exp_bits: {sketch.number(3, 5)} exp_min: -6 exp_max: {sketch.number(-1, 2)}"
        return f"{fields} quantization_param {{ precision: {precision} {bits} {mini} }}", bottoms, tops

    return drawn


def _quantized_inner_product(sketch: Sketch) -> Layout:
    return f"inner_product_param {{ num_output: {sketch.number(1, 4)} {FILLER} }}", [sketch.blob()], 1


def _fixed(kind: Kind, *methods: str) -> Kind:
    """The layer of that kind, in numbers of few bits as caffe-xilinx has them."""

    def drawn(sketch: Sketch) -> Layout:
        fields, bottoms, tops = kind(sketch)
        numbers = sketch.fields(
            "fixed_param", fixed_method=("OVER_FLOW", *methods), bit_width=(4, 8), enable=(None, None, "false")
        )
        return f"{fields} {numbers}", bottoms, tops

    return drawn


def _fixed_neuron(sketch: Sketch) -> Layout:
    fields, bottoms, tops = _fixed(one(), "DIFF_S", "DIFF_A", "DIFF_S_SIGMOID")(sketch)
    return f"{fields[:-1]} follow_data_layer: {sketch.few(*BOTH)} }}", bottoms, tops


def _correlation(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    numbers = f"kernel_size: {sketch.few(1, 1, 3)} max_displacement: {sketch.number(0, 2)} pad: {sketch.number(0, 3)}"
    strides = f"stride_1: {sketch.number(1, 2)} stride_2: {sketch.number(1, 2)}"
    fields = f"{numbers} {strides} correlation_type: {sketch.few('MULTIPLY', 'SUBTRACT')}"
    return f"correlation_param {{ {fields} }}", [x, sketch.like(shape)], 1


def _attention(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    mask = sketch.chance()
    sides = (3, sketch.number(1, 2) * 2 + 1) if mask else (2 * shape[2] - 1, 2 * shape[3] - 1)
    fields = sketch.fields(
        "pointwise_spatial_attention_param", psa_type=("COLLECT", "DISTRIBUTE"), is_softmax=BOTH,
        normalization_factor=(None, 2), attention_mask_height=sides[0] if mask else None,
        attention_mask_width=sides[1] if mask else None,
    )  # fmt: skip
    return fields, [x, sketch.like((shape[0], sides[0] * sides[1], *shape[2:]))], 1


def _meanfield(sketch: Sketch) -> Layout:
    scores, shape = _spatial(sketch)
    fields = sketch.fields(
        "multi_stage_meanfield_param",
        theta_alpha=(2, 10),
        theta_beta=(1, 10),
        theta_gamma=(1, 3),
        num_iterations=(1, 2),
    )
    return fields, [scores, sketch.like(shape), sketch.like((shape[0], 3, *shape[2:]))], 1


# -- other sizes -------------------------------------------------------------------------------------------------------


def _side(sketch: Sketch) -> int:
    return sketch.number(1, 6)


def _interp(sketch: Sketch) -> Layout:
    x, _ = _spatial(sketch)
    crop = f"pad_beg: {-sketch.number(0, 1)} pad_end: {-sketch.number(0, 1)} {sketch.few('', 'mode: NEAREST')}"
    turn = sketch.number(0, 5)
    if turn < 2:
        like = f"{'use_blob_size: true' if turn else ''}"
        return f"interp_param {{ {like} {crop} }}", [x, sketch.blob(4)], 1
    shrink, zoom = f"shrink_factor: {sketch.number(1, 3)}", f"zoom_factor: {sketch.number(1, 3)}"
    size = (f"height: {_side(sketch)} width: {_side(sketch)}", shrink, f"{shrink} {zoom}", "full_zoom_factor: 2")[
        turn - 2
    ]
    return f"interp_param {{ {size} {crop} }}", [x], 1


def _resized(message: str, formats: tuple[str, ...], modes: tuple[str, ...]) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        layout = str(sketch.few(*formats))
        sizes = "".join(
            f"output_{name}: {_side(sketch)} " if sketch.chance() else f"scale_{name}: {sketch.few(0.5, 1.5, 2)} "
            for name in ("height", "width", "depth")[: 3 if "D" in layout else 2]
        )
        mode = sketch.few("", *(f"{mode}: true" for mode in modes))
        return f'{message} {{ data_format: "{layout}" {sizes} {mode} }}', [sketch.blob(5 if "D" in layout else 4)], 1

    return drawn


def _resize_of_planes(sketch: Sketch, shape: tuple[int, ...]) -> str:
    turn = sketch.number(0, 3)
    if turn == 0:
        return f"resize_param {{ height: {_side(sketch)} width: {_side(sketch)} }}"
    if turn == 1:
        return sketch.fields(
            "resize_param", is_pyramid_test="true", out_height_scale=(0.5, 2), out_width_scale=(1, 1.5)
        )
    return sketch.fields("resize_param", resize_ratio=(0.5, 2, 3), type=("BILINEAR", "NEAREST"))


def _resize_of_xilinx(sketch: Sketch, shape: tuple[int, ...]) -> str:
    sizes = f"new_height: {_side(sketch)} new_width: {_side(sketch)}"
    scales = f"scale_h: {sketch.few(0.5, 2)} scale_w: {sketch.few(1, 1.5)}"
    return f"deephi_resize_param {{ {sketch.few(sizes, scales)} resize_type: {sketch.few('BILINEAR', 'NEAREST')} }}"


def _auto_crop(sketch: Sketch) -> Layout:
    """To the size of a blob that is no larger; whether both look at the same places, the net says."""
    x, shape = _spatial(sketch)
    small = [
        name
        for name, other in sketch.blobs.items()
        if len(other) == 4 and other[2] <= shape[2] and other[3] <= shape[3]
    ]
    return "", [x, str(sketch.few(*small))], 1


def _resample(sketch: Sketch) -> Layout:
    x, _ = _spatial(sketch)
    kind, antialias = sketch.few("NEAREST", "LINEAR", "CUBIC"), sketch.few(*BOTH)
    size = sketch.few("", f"height: {_side(sketch)} width: {_side(sketch)}", "factor: 0.5", "factor: 2")
    second = [sketch.blob(4)] if size == "" and sketch.chance() else []
    return f"resample_param {{ type: {kind} antialias: {antialias} {size} }}", [x, *second], 1


def _downsample(sketch: Sketch) -> Layout:
    x, _ = _spatial(sketch)
    if sketch.chance():
        return "", [x, sketch.blob(4)], 1
    return f"downsample_param {{ top_height: {_side(sketch)} top_width: {_side(sketch)} }}", [x], 1


def _upsample(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    turn = sketch.number(0, 3)
    if turn == 0:
        return f"upsample_param {{ scale: {sketch.number(2, 3)} }}", [x], 1
    if turn == 1:
        size = shape[2] + sketch.number(1, 3), shape[3] + sketch.number(1, 3)
        mask = sketch.input(shape, "whole", size[0] * size[1])
        return f"upsample_param {{ upsample_h: {size[0]} upsample_w: {size[1]} }}", [x, mask], 1
    less = sketch.few("", "pad_out_h: true", "pad_out_h: true pad_out_w: true")
    scale = "scale: 2" if turn == 2 else "scale_h: 2 scale_w: 2"
    places = (2 * shape[2] - ("_h: t" in str(less))) * (2 * shape[3] - ("_w: t" in str(less)))
    return f"upsample_param {{ {scale} {less} }}", [x, sketch.input(shape, "whole", max(1, places))], 1


def _unpooling(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    method, size = sketch.few("MAX", "AVE", "TILE"), (2 * shape[2] + sketch.number(0, 1), 2 * shape[3])
    mask = [sketch.input(shape, "whole", size[0] * size[1])] if method == "MAX" and sketch.chance() else []
    sides = f"kernel_size: {sketch.number(2, 3)} stride: 2 unpool_h: {size[0]} unpool_w: {size[1]}"
    return f"unpooling_param {{ unpool: {method} {sides} }}", [x, *mask], 1


# -- axes and values that move -----------------------------------------------------------------------------------------


def _order(message: str, name: str, *, some: bool) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        x = sketch.blob()
        left, order = [*range(len(sketch.shape(x)))], list[int]()
        while left and (not some or not order or sketch.number(0, 3)):
            order.append(left.pop(sketch.number(0, len(left) - 1)))
        return f"{message} {{ {times(name, order)} }}", [x], 1

    return drawn


def _axes(sketch: Sketch, shape: tuple[int, ...], field: str = "axis") -> str:
    """Some of the axes, or none at all, each once, at times counted from the end."""
    chosen = [axis for axis in range(len(shape)) if sketch.chance()]
    return times(field, [axis - len(shape) if sketch.number(0, 3) == 0 else axis for axis in chosen])


def _reduce(name: str) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        x = sketch.blob()
        return f"{name} {{ {_axes(sketch, sketch.shape(x))} keepdims: {sketch.few(*BOTH)} }}", [x], 1

    return drawn


def _reduce_norm(name: str) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        x = sketch.blob()
        return f"{name} {{ {_axes(sketch, sketch.shape(x), 'axes')} keepdims: {sketch.few(0, 1)} }}", [x], 1

    return drawn


def _reverse(sketch: Sketch) -> Layout:
    x = sketch.blob()
    return f"reverse_param {{ {_axes(sketch, sketch.shape(x))} }}", [x], 1


def _squeeze(sketch: Sketch) -> Layout:
    x = sketch.blob()
    ones = [axis for axis, size in enumerate(sketch.shape(x)) if size == 1 and sketch.chance()]
    return f"squeeze_param {{ {times('axis', ones)} }}", [x], 1


def _pad(sketch: Sketch) -> Layout:
    x = sketch.blob()
    if sketch.number(0, 2) == 0:
        return f"pad_param {{ pad_h: {sketch.number(0, 2)} pad_w: {sketch.number(0, 2)} }}", [x], 1
    paddings = times("paddings", [sketch.number(0, 1) for _ in 2 * sketch.shape(x)])
    return f"pad_param {{ {paddings} constant_values: {sketch.few(0, -1.5)} }}", [x], 1


def _space_to_batch(sketch: Sketch) -> Layout:
    x = sketch.blob(4)
    blocks = [sketch.number(1, 2) for _ in range(sketch.number(1, 2))]
    paddings = [
        n
        for size, block in zip(sketch.shape(x)[1:], blocks, strict=False)
        for n in (sketch.number(0, 1) * block, -size % block)
    ]
    return f"space_to_batch_nd_param {{ {times('block_shape', blocks)} {times('paddings', paddings)} }}", [x], 1


def _batch_to_space(sketch: Sketch) -> Layout:
    blocks = [sketch.number(1, 2) for _ in range(sketch.number(1, 2))]
    shape = sketch.number(1, 2) * blocks[0] * blocks[-1], *(sketch.number(2, 3) for _ in "chw")
    crops = times("crops", [sketch.number(0, 1) for _ in 2 * blocks])
    return f"batch_to_space_nd_param {{ {times('block_shape', blocks)} {crops} }}", [sketch.like(shape)], 1


def _with_channels(multiple: int, text: str) -> Kind:
    """Over an input whose channels, height and width are that multiple, or a blob that has them already."""

    def drawn(sketch: Sketch) -> Layout:
        fitting = [
            n for n, shape in sketch.blobs.items() if len(shape) == 4 and not any(d % multiple for d in shape[1:])
        ]
        own = (
            sketch.items(),
            multiple * sketch.number(1, 2),
            multiple * sketch.number(1, 2),
            multiple * sketch.number(1, 2),
        )
        x = str(sketch.few(*fitting)) if fitting and sketch.chance() else sketch.input(own)
        formats = ('"NHWC"', '"NCHW"', '"DCR"', '"CRD"')[: 4 if "depth_to" in text else 2]
        return text.replace("FORMAT", str(sketch.few(*formats))), [x], 1

    return drawn


def _shuffle(sketch: Sketch) -> Layout:
    x = sketch.blob()
    channels = (*sketch.shape(x), 1, 1)[1]
    return f"shuffle_channel_param {{ group: {sketch.few(*(g for g in (1, 2, 3) if channels % g == 0))} }}", [x], 1


def _arithmetic(name: str) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        x = sketch.blob()
        shape = sketch.shape(x)
        start = sketch.number(0, len(shape))
        other = tuple(1 if sketch.number(0, 2) == 0 else size for size in shape[start:])
        if other and sketch.chance():
            return f"{name}_param {{ {times(f'{name}_shape', other)} }}", [x], 1
        second = sketch.input(other) if name != "div" else sketch.input(other, "scores")
        return "", [x, second], 1

    return drawn


def _axpy(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    return "", [sketch.like((*shape[:2], 1, 1) if sketch.chance() else shape[:2]), x, sketch.like(shape)], 1


def _channel_scale(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    factors = sketch.like((*shape[:1], 1, *shape[2:]))
    turn = sketch.number(0, 3)
    if turn > 1:
        return f"channel_scale_param {{ do_forward: {'false' if turn == 2 else 'true'} }}", [x, factors], 1
    return "channel_scale_param { global_scale: true min_global_scale: 0.5 }", [x, factors], turn + 1


def _pairwise(sketch: Sketch) -> Layout:
    x = sketch.blob(2)
    other = sketch.like((sketch.number(1, 3), sketch.shape(x)[1]))
    operation = sketch.few("SUM", "PROD", "MAX")
    weights = "coeff: 0.5 coeff: -2" if operation == "SUM" and sketch.chance() else ""
    return f"pairwise_param {{ operation: {operation} {weights} }}", [x, other], 1


def _mean(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    values = times("value", [0.5 * i for i in range(int(sketch.few(1, shape[1]) or 1))])
    scales = "".join(f"{name}_scale: {sketch.few(1, 0.5, -2)} " for name in ("mean", "input", "output"))
    second = [sketch.like(shape)] if sketch.number(0, 3) == 0 else []
    return (
        f"mean_param {{ operation: {sketch.few('ADD', 'SUBTRACT')} {values} {scales} }}",
        [x, *second],
        1 + len(second),
    )


def _inner_distance(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape, outputs = sketch.shape(x), sketch.number(1, 3)
    start = sketch.axis(shape, 1)
    size = 1
    for side in shape[start:]:
        size *= side
    more = sketch.number(0, 3)
    fields = sketch.fields(
        "inner_distance_param", num_output=outputs, axis=start, distance_type=('"L1"', '"L2"'), transpose=(None, "true"),
        normalize=(None, None, "true"), bias_term=("false",) if more == 1 else BOTH if more in (0, 3) else ("true",),
    )  # fmt: skip
    seconds = [sketch.like((outputs, size)), sketch.like((outputs,))][: more if more < 3 else 0]
    return f"{fields[:-1]} {FILLER} }}", [x, *seconds], 1


def _mask_pooling(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    return "", [x, sketch.like((shape[0], 1, *shape[2:]))], 1


def _flow_warp(sketch: Sketch) -> Layout:
    x, shape = _spatial(sketch)
    return sketch.fields("flow_warp_param", fill_value=(None, "ZERO")), [x, sketch.like((shape[0], 2, *shape[2:]))], 1


# -- sequences ---------------------------------------------------------------------------------------------------------


def _lstm_of_forks(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    size = sketch.few(None, None, *(n for n in (1, 2, 3) if shape and shape[0] % n == 0))
    fields = sketch.fields("lstm_param", num_output=(1, 3), batch_size=size, weight_filler=UNIFORM, bias_filler=UNIFORM)
    rows = shape[:1] if size or len(shape) < 3 else shape[:2]
    return fields, [x, *([sketch.input(rows, "starts")] if sketch.number(0, 2) == 0 else [])], 1


def _ctc(sketch: Sketch) -> Layout:
    steps, items, classes = sketch.number(1, 5), sketch.number(1, 3), sketch.number(2, 4)
    fields = sketch.fields("ctc_decoder_param", blank_index=(None, 0, 1, -1), ctc_merge_repeated=(None, *BOTH))
    scores = sketch.input((steps, items, classes), "scores")
    turn = sketch.number(0, 3)
    if turn < 2:
        return fields, [scores, *([sketch.input((items, 3), "whole", classes)] if turn else [])], 1
    goes_on = sketch.input((steps, items), "starts")
    labels = [sketch.input((steps, items), "whole", classes)] if turn == 3 else []
    return fields, [scores, goes_on, *labels], 2 + len(labels)


def _continuation(sketch: Sketch) -> Layout:
    steps = f"time_step: {sketch.number(1, 3)}"
    if sketch.chance():
        return f"continuation_indicator_param {{ {steps} batch_size: {sketch.number(1, 3)} }}", [], 1
    x = sketch.blob()
    return f"continuation_indicator_param {{ {steps} axis: {sketch.axis(sketch.shape(x))} }}", [x], 1


def _reverse_time(sketch: Sketch) -> Layout:
    x = sketch.blob()
    steps, streams = (*sketch.shape(x), 1, 1)[:2]
    lengths = sketch.input((streams,), "whole", steps + 1)
    return sketch.fields("reverse_time_param", copy_remaining=BOTH), [x, lengths], 1


# -- regions and boxes -------------------------------------------------------------------------------------------------


def _rois(sketch: Sketch, pictures: int, rows: int | None = None) -> str:
    return sketch.input((rows or sketch.number(1, 4), 5), "regions", pictures)


def _pooled(message: str, *, widens: bool) -> Kind:
    def drawn(sketch: Sketch) -> Layout:
        x, shape = _spatial(sketch)
        fields = sketch.fields(
            message, pooled_h=(1, 2, 3), pooled_w=(1, 2, 3), spatial_scale=(1, 0.5, 0.25),
            pad_ratio=(None, 0.25) if widens else None,
        )  # fmt: skip
        return fields, [x, _rois(sketch, shape[0])], 1

    return drawn


def _position_sensitive(sketch: Sketch) -> Layout:
    side, outputs = sketch.number(1, 2), sketch.number(1, 2)
    shape = sketch.items(), outputs * side * side, sketch.number(2, 6), sketch.number(2, 6)
    fields = sketch.fields("psroi_pooling_param", spatial_scale=(1, 0.5), output_dim=outputs, group_size=side)
    return fields, [sketch.like(shape), _rois(sketch, shape[0])], 1


def _map(sketch: Sketch) -> tuple[int, int]:
    return sketch.number(1, 3), sketch.number(1, 3)


def _bbox(sketch: Sketch, *, aware: bool | None = None) -> str:
    numbers = sketch.few(
        "", "bbox_mean: 0 bbox_mean: 0.1 bbox_mean: 0 bbox_mean: 0 " + times("bbox_std", [0.1, 0.1, 0.2, 0.2])
    )
    return f"bbox_reg_param {{ {numbers} {'' if aware is None else f'cls_aware: {str(aware).lower()}'} }}"


def _thinning(sketch: Sketch) -> str:
    names = {
        "fg_thr": (0, 0.2), "iou_thr": (0.5, 0.3), "nms_type": ('"IOU"', '"IOMU"', '"IOFU"'), "field_whr": (2, 4),
        "field_xyr": (2, 4), "max_nms_num": (0, 5), "max_post_nms_num": (0, 3), "min_size": (0, 15),
    }  # fmt: skip
    return " ".join(f"{name}: {sketch.few(*values)}" for name, values in names.items())


def _box_output(sketch: Sketch) -> Layout:
    classes, maps = sketch.number(2, 3), sketch.number(1, 2)
    blobs = [sketch.like((sketch.items(), classes + 4, *_map(sketch))) for _ in range(maps)]
    fields = "".join(f"field_w: {sketch.few(16, 32)} field_h: {sketch.few(16, 32)} downsample_rate: 8 " for _ in blobs)
    return f"box_output_param {{ {_thinning(sketch)} {fields} }} {_bbox(sketch)}", blobs, sketch.number(1, 2)


def _box_group_output(sketch: Sketch) -> Layout:
    blobs, groups = list[str](), ""
    for _ in range(sketch.number(1, 2)):
        fields, sides = sketch.number(1, 2), _map(sketch)
        blobs += [sketch.like((sketch.items() * fields, count, *sides)) for count in (3, 4)]
        sizes = times("field_w", [16, 32][:fields]) + " " + times("field_h", [16, 24][:fields])
        groups += f"box_group_param {{ {sizes} stride: 8 }} "
    return f"box_group_output_param {{ {_thinning(sketch)} {groups} }} {_bbox(sketch)}", blobs, sketch.number(1, 2)


def _decode_bbox(sketch: Sketch) -> Layout:
    rows = sketch.number(1, 4)
    return _bbox(sketch), [sketch.like((rows, 8)), _rois(sketch, 2, rows)], 1


def _frcnn_output(sketch: Sketch) -> Layout:
    rows, classes, aware = sketch.number(1, 5), sketch.number(2, 3), sketch.chance()
    fields = sketch.fields(
        "frcnn_output_param",
        conf_thr=(0, 0.3),
        iou_thr=(0.5, 0.3),
        nms_type=('"IOU"', '"IOMU"', '"IOFU"'),
        max_det_num=(0, 2),
    )
    blobs = [sketch.input((rows, classes), "scores"), sketch.like((rows, 4 * classes if aware else 8))]
    rois = sketch.input((rows, sketch.number(5, 6)), "regions", 1)
    return f"{fields} {_bbox(sketch, aware=aware)}", [*blobs, rois, sketch.input((1, 2), "picture size")], 1


def _scale_route(sketch: Sketch) -> Layout:
    rows = sketch.number(1, 4)
    fields = sketch.fields("scale_route_param", low_scale=(None, 4), high_scale=(None, 8))
    others = [sketch.like((rows, 2, *([2] * sketch.number(0, 2)))) for _ in range(sketch.number(0, 2))]
    return fields, [_rois(sketch, 2, rows), *others], 1 + len(others)


def _proposal_inputs(sketch: Sketch, anchors: int, items: int = 1) -> list[str]:
    sides = _map(sketch)
    scores = sketch.input((items, 2 * anchors, *sides), "scores")
    info = sketch.input((items, sketch.number(3, 4)), "picture size")
    return [scores, sketch.like((items, 4 * anchors, *sides)), info]


def _proposal(sketch: Sketch) -> Layout:
    if sketch.chance():
        scales, ratios = sketch.few(1, 3), sketch.few(1, 3)
        fields = sketch.fields(
            "proposal_param", feat_stride=(8, 16), anchor_base_size=(None, 8), anchor_scale=scales, anchor_ratio=ratios,
            max_rois=(4, 10), pre_nms_topn=(6, 6000), rpn_min_size=(0, 16), rpn_nms_thresh=(0.5, 0.7),
        )  # fmt: skip
        anchors = int(scales or 1) * int(ratios or 1)
        return fields, _proposal_inputs(sketch, anchors), sketch.number(1, 2)
    ratios, scales = sketch.number(1, 2), sketch.number(1, 2)
    sizes = f"{times('ratio', [0.5, 1][:ratios])} {times('scale', [1, 2][:scales])}"
    fields = sketch.fields(
        "proposal_param", feat_stride=(8, 16), base_size=(None, 8), min_size=(1, 16), pre_nms_topn=(6, 6000),
        post_nms_topn=(4, 10), nms_thresh=(0.5, 0.7),
    )  # fmt: skip
    return f"{fields[:-1]} {sizes} }}", _proposal_inputs(sketch, ratios * scales), sketch.number(1, 2)


def _frcnn_proposal(sketch: Sketch) -> Layout:
    return sketch.fields("proposal_param", feat_stride=(8, 16)), _proposal_inputs(sketch, 9), sketch.number(1, 2)


def _python_proposal(sketch: Sketch) -> Layout:
    """Layers in Python whose rule is known, so that nothing of theirs runs."""
    module = str(sketch.few("rpn.proposal_layer", "pylayer.proposal_layer", "SSH.layers.proposal_layer"))
    words = f"'feat_stride': {sketch.few(8, 16)}"
    fields = f'python_param {{ module: "{module}" layer: "ProposalLayer" param_str: "{words}" }}'
    return fields, _proposal_inputs(sketch, 9), 1


def _prior_box(sketch: Sketch) -> Layout:
    turn = sketch.number(0, 3)
    grid = sketch.fields(
        "prior_box_param", clip=BOTH, flip=BOTH, offset=(0.5, 0), step=(None, 8), img_size=(None, 40),
        tf=(None, None, "true"), yx_order=(None, None, "true"), keras=(None, None, "true"),
    )[:-1]  # fmt: skip
    variances = sketch.few("", "variance: 0.2", times("variance", [0.1, 0.1, 0.2, 0.2]))
    if turn == 0:
        sizes = "box_width: 8 box_height: 6 box_width: 3 box_height: 9"
    elif turn == 1:
        sizes = "fixed_size: 16 fixed_size: 32 fixed_ratio: 1 density: 2 density: 1"
    elif turn == 2:
        sizes = "min_size: 32 faceboxes: true"
    else:
        sizes = f"min_size: 8 {sketch.few('', 'max_size: 14')} {times('aspect_ratio', [2, 3][: sketch.number(0, 2)])}"
    return f"{grid} {variances} {sizes} }}", [sketch.blob(4), sketch.blob(4)], 1


def _prior_box_clustered(sketch: Sketch) -> Layout:
    fields = sketch.fields("prior_box_param", clip=BOTH, offset=(0.5, 0), step=(None, 8), img_size=(None, 40))
    return f"{fields[:-1]} width: 8 height: 6 width: 3 height: 9 }}", [sketch.blob(4), sketch.blob(4)], 1


def _detection_output(sketch: Sketch) -> Layout:
    items, priors, classes, share = sketch.items(), sketch.number(1, 5), sketch.number(2, 3), sketch.chance()
    nms = sketch.fields("nms_param", nms_threshold=(0.3, 0.5), top_k=(None, -1, 3), eta=(None, 0.9))
    fields = sketch.fields(
        "detection_output_param", num_classes=classes, share_location=str(share).lower(), background_label_id=(0, 1, 5),
        code_type=("CORNER", "CENTER_SIZE", "CORNER_SIZE"), keep_top_k=(None, -1, 3), confidence_threshold=(None, 0.01, 0.4),
        variance_encoded_in_target=(None, *BOTH), objectness_score=(None, None, 0.3),
    )  # fmt: skip
    boxes = sketch.like((items, priors * 4 * (1 if share else classes)))
    blobs = [boxes, sketch.input((items, priors * classes), "scores"), sketch.input((1, 2, 4 * priors), "priors")]
    if "objectness" in fields:
        blobs += [sketch.input((items, 2 * priors), "scores"), sketch.like((items, 4 * priors))][: sketch.number(1, 2)]
    return f"{fields[:-1]} {nms} }}", blobs, 1


def _yolo(sketch: Sketch) -> Layout:
    boxes, classes, side = sketch.number(1, 2), sketch.number(1, 3), sketch.number(1, 3)
    fields = sketch.fields(
        "yolo_detection_output_param",
        num_classes=classes,
        num_box=boxes,
        confidence_threshold=(0.01, 0.3),
        nms_threshold=(0.3, 0.45),
    )
    sizes = times("biases", [1.5, 1, 0.7, 2][: 2 * boxes])
    return f"{fields[:-1]} {sizes} }}", [sketch.like((sketch.items(), boxes * (5 + classes), side, side))], 1


def _yolo_3(sketch: Sketch) -> Layout:
    maps, boxes, classes = sketch.number(1, 2), sketch.number(1, 2), sketch.number(1, 3)
    fields = sketch.fields(
        "yolov3_detection_output_param", num_classes=classes, num_box=boxes, confidence_threshold=(0.01, 0.3),
        nms_threshold=(0.3, 0.45), mask_group_num=maps,
    )  # fmt: skip
    sizes = f"{times('biases', [10, 13, 16, 30, 33, 23, 30, 61])} {times('anchors_scale', [32, 16][:maps])}"
    masks = times("mask", range(maps * boxes))
    blobs = [sketch.like((sketch.items(), boxes * (5 + classes), *_map(sketch))) for _ in range(maps)]
    return f"{fields[:-1]} {sizes} {masks} }}", blobs, 1


def _region_output(sketch: Sketch) -> Layout:
    boxes, classes, side = sketch.number(1, 2), sketch.number(1, 3), sketch.number(1, 3)
    fields = sketch.fields(
        "detection_output_param", num_classes=classes, num_box=boxes, side=side, confidence_threshold=(0.01, 0.3),
        nms_threshold=(0.3, 0.45),
    )  # fmt: skip
    sizes = times("biases", [1.5, 1, 0.7, 2][: 2 * boxes])
    return f"{fields[:-1]} {sizes} }}", [sketch.like((sketch.items(), side * side * boxes * (5 + classes)))], 1


def _nms(sketch: Sketch) -> Layout:
    shape = sketch.items(), sketch.number(1, 2), sketch.number(3, 5), sketch.number(3, 5)
    fields = sketch.fields("nms_param", threshold=(0.3, 0.5), num_parts=sketch.number(1, shape[1]), max_peaks=(1, 4, 9))
    return fields, [sketch.input(shape, "scores")], 1


def _smooth_l1(sketch: Sketch) -> Layout:
    x = sketch.blob()
    shape = sketch.shape(x)
    # weights that learn would have no diff in Caffe
    others = [sketch.like(shape), *(sketch.input(shape) for _ in range(sketch.number(0, 2)))]
    sigma = sketch.few(None, 1, 2) if len(others) != 2 else None
    return sketch.fields("smooth_l1_loss_param", sigma=sigma) if sigma else "", [x, *others], 1


FORK_KINDS: dict[str, Kind] = {
    "Cosine": one(), "Mish": one(), "SeLu": one(), "HardSwish": one(), "SeLuDropout": one(), "SeLUDropout": one(),
    "HardSigmoid": one("hard_sigmoid_param", alpha=(None, 0.5), beta=(None, 0)),
    "ReLU6": one("relu6_param", negative_slope=(0, 0.1)),
    "ReLUX": one("relux_param", negative_slope=(0, 0.1), maximal_value=(None, 1, 0)),
    "Sparsify": one("sparsify_param", coef=(None, 0.1), thre=(0, 0.2)),
    "Truncation": one("truncation_param", lower_bound=(None, -1), upper_bound=(None, 0.5)),
    "BN": _bn, "DenseBlock": _over(4, _dense_block),
    "CuDNNBatchNorm": one("cudnn_batch_norm_param", frozen=(None, *BOTH), eps=(None, 0.1), scale_filler=(POSITIVE,),
                          bias_filler=(UNIFORM,)),
    "GRN": one("grn_param", bias=(None, 1), dummy_backward=(None, None, "true")),
    "L2Norm": _either(one("l2norm_param", eps=(1e-8, 0.1)), one("l2norm_param", l2_length=(1, 4)), one()),
    "L2Normalize": one(), "NormL2": one(), "Normalization": one("normalization_param", norm=(None, "L2")),
    "Normalize": _either(_normalize_of_ssd, _normalize_of_happynear, one("normalize_param", coeff=(1, 2)), one()),
    "ChannelNorm": _over(4, lambda sketch, shape: ""), "Gram": _over(4, lambda sketch, shape: ""),
    "Convolution3D": _convolution_3d, "Deconvolution3D": _deconvolution_3d, "Pooling3D": _pooling_3d,
    "DepthwiseConvolution": convolution,
    "ConvolutionDepthwise": _windowed("convolution_param", dilates=True), "DeformableConvolution": _deformable,
    "Local": _either(_windowed("local_param", dilates=False), _windowed("convolution_param", dilates=False)),
    "ConvolutionRistretto": _quantized(_windowed("convolution_param", dilates=False)),
    "DeconvolutionRistretto": _quantized(_windowed("convolution_param", dilates=False)),
    "FcRistretto": _quantized(_quantized_inner_product),
    "Correlation": _correlation, "PointwiseSpatialAttention": _attention, "MultiStageMeanfield": _meanfield,
    "Interp": _interp, "Resample": _resample, "Downsample": _downsample, "Upsample": _upsample, "Unpooling": _unpooling,
    "ResizeBilinear": _resized("resize_bilinear_param", ("NCHW", "NHWC", "NCHWD"),
                               ("align_corners", "half_pixel_centers", "pytorch_half_pixel")),
    "ResizeNearestNeighbor": _resized("resize_nearest_neighbor_param", ("NCHW", "NHWC"),
                                      ("align_corners", "half_pixel_centers", "half_pixel_onnx")),
    "ImResize": _over(4, lambda sketch, shape: sketch.fields("imresize_param", factor=(1.5, 2)) if sketch.chance() else
                      sketch.fields("imresize_param", target_spatial_height=(3, 6), target_spatial_width=(2, 7))),
    "MaskResize": _over(4, lambda sketch, shape: sketch.fields("mask_resize_param", output_height=(1, 3, 6),
                                                               output_width=(2, 5))),
    "UpsampleDarknet": _over(4, lambda sketch, shape: sketch.fields("upsample_darknet_param", stride=(1, 2, 3))),
    "Permute": _order("permute_param", "order", some=True), "Transpose": _order("transpose_param", "dim", some=False),
    "Reverse": _reverse, "Squeeze": _squeeze, "Pad": _pad,
    "Flip": _over(4, lambda sketch, shape: sketch.fields("flip_param", flip_width=(None, *BOTH), flip_height=(None, *BOTH))),
    "SpaceToBatchND": _space_to_batch, "BatchToSpaceND": _batch_to_space,
    "DepthToSpace": _either(*(_with_channels(n * n, f"depth_to_space_param {{ block_size: {n} data_format: FORMAT }}")
                              for n in (1, 2))),
    "SpaceToDepth": _with_channels(2, "space_to_depth_param { block_size: 2 data_format: FORMAT }"),
    "Reorg": _either(*(_with_channels(4, f"reorg_param {{ stride: 2 reverse: {way} }}") for way in BOTH)),
    "ShuffleChannel": _shuffle,
    "Add": _arithmetic("add"), "Sub": _arithmetic("sub"), "Mul": _arithmetic("mul"), "Div": _arithmetic("div"),
    "DeephiResize": _over(4, _resize_of_xilinx), "Resize": _over(4, _resize_of_planes), "AutoCrop": _auto_crop,
    "ConvolutionFixed": _fixed(convolution, "DIFF_S"), "InnerProductFixed": _fixed(_quantized_inner_product, "DIFF_S"),
    "FixedNeuron": _fixed_neuron,
    "Insanity": one("insanity_param", lb=(2, 3), ub=(4, 8)), "ScaleFilter": one("scale_filter_param", min_scale=(0.5,)),
    "ScaleTanH": one("scale_tanh_param", init_scale=(1, 0.5, 2)),
    "Axpy": _axpy, "ChannelScale": _channel_scale, "Pairwise": _pairwise, "Mean": _mean,
    "InnerDistance": _inner_distance, "MaskPooling": _mask_pooling, "FlowWarp": _flow_warp,
    **{f"Reduce{name}": _reduce_norm(f"reduce_{name.lower()}_param") for name in ("L1", "L2")},
    **{f"Reduce{name}": _reduce(f"reduce_{name.lower()}_param")
       for name in ("Logsumexp", "Max", "Mean", "Min", "Prod", "Sum")},
    "Lstm": _lstm_of_forks, "CTCGreedyDecoder": _ctc, "ContinuationIndicator": _continuation, "ReverseTime": _reverse_time,
    "ROIPooling": _pooled("roi_pooling_param", widens=True), "ROIAlign": _pooled("roi_pooling_param", widens=True),
    "ROIWarping": _pooled("roi_warping_param", widens=False),
    "PSROIPooling": _position_sensitive, "PSROIAlign": _position_sensitive,
    "BoxOutput": _box_output, "BoxGroupOutput": _box_group_output, "DecodeBBox": _decode_bbox, "FrcnnOutput": _frcnn_output,
    "ScaleRoute": _scale_route, "Proposal": _proposal, "FrcnnProposal": _frcnn_proposal, "Python": _python_proposal,
    "PriorBox": _prior_box, "PriorBoxClustered": _prior_box_clustered,
    "DetectionOutput": _either(_detection_output, _detection_output, _region_output),
    "YoloDetectionOutput": _yolo, "Yolov3DetectionOutput": _yolo_3, "Nms": _nms, "SmoothL1Loss": _smooth_l1,
}  # fmt: skip
BY_DIALECT = {
    "akrit2013": "L2Norm", "ultinous": "L2Norm", "retrieval": "L2Norm", "happynear": "Normalize", "tsn": "Normalize",
    "synopsys": "Reorg", "hed": "Crop",
    "refinedet": "DetectionOutput", "faceboxes": "PriorBox", "ssd": "PriorBox", "pvanet": "Proposal",
    "mini-caffe": "Proposal",
}  # fmt: skip
"""Dialect → a type whose rule it decides."""
ITEMS_APART = {
    "Cosine", "Mish", "SeLu", "HardSwish", "SeLuDropout", "SeLUDropout", "HardSigmoid", "ReLU6", "ReLUX", "Sparsify",
    "Truncation", "GRN", "L2Norm", "L2Normalize", "NormL2", "Normalization", "Normalize", "ChannelNorm", "Gram",
    "Convolution3D", "Deconvolution3D", "Pooling3D", "ConvolutionDepthwise", "DeformableConvolution", "Local", "Correlation",
    "PointwiseSpatialAttention", "MultiStageMeanfield", "Interp", "Resample", "Downsample", "Upsample", "Unpooling",
    "MaskResize", "UpsampleDarknet", "Flip", "DepthToSpace", "SpaceToDepth", "Reorg", "ShuffleChannel", "Axpy", "ChannelScale",
    "MaskPooling", "FlowWarp", "Nms",
}  # fmt: skip
"""Types that treat each item of the batch by itself."""

"""Fields of the schema that are taken and change nothing here, each with the reason: one table, and where a net has them.

Every other field is read by some layer or command; tests/caffe_format/test_ignored_fields.py holds that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from caffeconv.caffe_pb2 import NetParameter

ALL = "*"
"""Every field of a message."""
_HOW = "it says which code does the work, or how much memory that takes"
_TRAINING = "only training has it"
_LOSS = "it belongs to a loss or an evaluation, which is not computed"
_SHOW = "it says what is shown or saved on the way"
_READING = "it says how data are read; whoever reads them from the net's own source is told of it"
_INT8 = "it is a hint for kernels of 8 bits, which compute nearly the same"
_NOT_BUILT = "no layer that reads it is built"
_UNUSED = "the fork's own code does not look at it"
_REFUSED = "it counts only with what is refused: several pictures"
_FILE = "it is a form of the numbers in a file, which the reader of weights files knows"
_RANDOM = "it belongs to what is drawn at random"
_REASONS: Mapping[str, Mapping[str, str]] = {
    _HOW: {
        "BNParameter": "engine",
        "BatchNormParameter": "engine",
        "CompileNetState": ALL,
        "CompressedLayerTypes": ALL,
        "ConcatParameter": "engine",
        "ConvolutionParameter": (
            "engine force_nd_im2col cudnn_convolution_algo_seeker conv_algos_override conv_algorithm conv_mode"
        ),
        "DataParameter": "force_encoded_color prefetch threads parser_threads cache",
        "DeformableConvolutionParameter": "engine force_nd_im2col",
        "DenseBlockParameter": "gpuIdx BC_ultra_space_efficient workspace_MB",
        "DropoutParameter": "engine",
        "EltwiseParameter": "engine",
        "ImageDataParameter": "cache precache threads",
        "InnerProductParameter": "engine gemm_mode spmdm_transpose_in spmdm_transpose_out",
        "LRNParameter": "engine",
        "LayerParameter": (
            "forward_type backward_type forward_math backward_math multinode mn_activation_param "
            "mn_grad_compress_param reshape_every_iter split_param source_class sigmoid_param tanh_param"
        ),
        "MemoryDataParameter": "share_in_parallel",
        "MemoryOptimizationParameter": ALL,
        "MnActivationParameter": ALL,
        "MnModelParallelParameter": ALL,
        "MnParamGradCompressParameter": ALL,
        "MultinodeLayerParameter": ALL,
        "MultinodeParameter": ALL,
        "NetParameter": (
            "default_forward_type default_backward_type default_forward_math default_backward_math "
            "default_conv_algos_override reduce_buckets default_cudnn_math_override eltwise_mem_sharing "
            "compile_net_state multinode mem_param"
        ),
        "PoolingParameter": "engine",
        "PythonParameter": "share_in_parallel",
        "ReLUParameter": "engine",
        "SPPParameter": "engine",
        "SigmoidParameter": ALL,
        "SoftmaxParameter": "engine",
        "SplitParameter": ALL,
        "TanHParameter": ALL,
        "UnpoolingParameter": "engine",
    },
    _TRAINING: {
        "BatchNormParameter": (
            "moving_average_fraction update_global_stats filler use_weight_bias bias_term stats_batch_size"
        ),
        "ChannelScaleParameter": "init_global_scale",
        "ConvolutionParameter": "weight_fixed dis_mode gen_mode",
        "DecodeBBoxParameter": ALL,
        "DenseBlockParameter": "initChannel use_dropout dropout_amount moving_average_fraction",
        "InnerDistanceParameter": "update_center_only bias_term bias_filler",
        "InnerProductParameter": "weight_fixed dis_mode gen_mode",
        "LSTMParameter": "clipping_threshold",
        "LayerParameter": "connectivity_mode decode_bbox_param selu_dropout_param spatial_dropout_param",
        "MultiStageMeanfieldParameter": (
            "compatibility_mode threshold spatial_filter_weight bilateral_filter_weight "
            "spatial_filter_weights_str bilateral_filter_weights_str"
        ),
        "NetParameter": "global_grad_scale global_grad_scale_adaptive bn_stats_batch_size richness",
        "ScaleParameter": "dis_mode gen_mode",
        "ScaleTanHParameter": "step_size gamma power",
        "SeLuDropoutParameter": ALL,
        "SpatialDropoutParameter": ALL,
    },
    _LOSS: {
        "LayerParameter": (
            "box_annotator_ohem_param center_loss_param detection_accuracy_param detection_evaluate_param "
            "detection_group_loss_param detection_loss_param eltwise_accuracy_param eval_detection_param "
            "focal_loss_param l1_loss_param margin_inner_product_param proposal_target_param region_loss_param "
            "seg_accuracy_param triplet_loss_param yolo_seg_param yolov3_param"
        ),
        "LossParameter": "gamma min_weight max_weight max_entropy_weight",
        "MultiBoxLossParameter": (
            "loc_loss_type loc_weight match_type overlap_threshold use_prior_for_matching use_difficult_gt do_neg_mining "
            "neg_pos_ratio neg_overlap map_object_to_agnostic ignore_cross_boundary_bbox bp_inside mining_type sample_size "
            "use_prior_for_nms ignore_difficult_gt use_polygon"
        ),
        "SoftmaxParameter": (
            "hard_ratio class_weight hard_mining_label cutting_point normalize_type label_smooth_factor"
        ),
        **dict.fromkeys(
            (
                "BoxAnnotatorOHEMParameter", "CenterLossParameter", "DetectionAccuracyParameter",
                "DetectionEvaluateParameter", "DetectionGroupLossParameter", "DetectionLossParameter",
                "EltwiseAccuracyParameter", "EvalDetectionParameter", "FocalLossParameter", "L1LossParameter",
                "MarginInnerProductParameter", "ProposalTargetParameter", "RegionLossParameter", "SegAccuracyParameter",
                "TripletLossParameter", "YoloSegParameter", "Yolov3Parameter",
            ),
            ALL,
        ),
    },
    _SHOW: {
        "ConvolutionParameter": "dump_parameter dump_activation parameter_sparsity_pattern_histogram",
        "InnerProductParameter": "dump_parameter dump_activation",
        "DetectionOutputParameter": "save_output_param visualize visualize_threshold save_file label_map_file",
        "FrcnnOutputParameter": "save_output_param",
        "LayerParameter": "debug",
        "NetParameter": "debug_info",
        "RecurrentParameter": "debug_info",
        "SaveOutputParameter": ALL,
        "SparsifyParameter": "display",
        "YoloDetectionOutputParameter": "side label_map_file",
    },
    _READING: {
        "ImageDataParameter": (
            "ignore_label show_data use_image use_temporal_jitter sampling_rate use_label num_truth_channels is_flow "
            "truth_scale"
        ),
        "LayerParameter": (
            "annotated_data_param dense_image_data_param detection_data_param image_gt_data_param video_data_param "
            "detectnet_augmentation_param detectnet_groundtruth_param augmentation_param coeff_schedule_param"
        ),
        "TransformationParameter": (
            "noise_param emit_constraint distort_param expand_param resize_param random_resize_param "
            "random_aspect_ratio_param flow bgr2rgb scale_factors img_rand_resize_lower img_rand_resize_upper "
            "var_sz_img_enabled vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower "
            "horizontal_stretch_upper allow_upscale fix_crop more_fix_crop multi_scale scale_ratios max_distort is_flow "
            "original_image contrast_brightness_adjustment smooth_filtering min_contrast max_contrast max_smooth "
            "max_color_shift max_rotation_angle apply_probability debug_params"
        ),
        "ResizeParameter": "prob pad_mode pad_value interp_mode height_scale width_scale",
        **dict.fromkeys(
            (
                "AnnotatedDataParameter", "AugmentationParameter", "BatchSampler", "ClassMapping",
                "CoeffScheduleParameter", "DenseImageDataParameter", "DetectNetAugmentationParameter",
                "DetectNetGroundTruthParameter", "DetectionDataParameter", "DistortionParameter", "EmitConstraint",
                "ExpansionParameter", "ImageGtDataParameter", "NoiseParameter", "RandomAspectRatioParameter",
                "RandomGeneratorParameter", "RandomResizeParameter", "SaltPepperParameter", "SampleConstraint", "Sampler",
                "VideoDataParameter",
            ),
            ALL,
        ),
    },
    _INT8: {"QuantizationParameter": "scale_in scale_out scale_params is_negative_input force_u8_input"},
    _NOT_BUILT: {
        "LayerParameter": "accum_param dense_crf_param mat_read_param mat_write_param",
        **dict.fromkeys(
            ("AccumParameter", "DenseCRFParameter", "MatReadParameter", "MatWriteParameter"), ALL
        ),
    },
    _UNUSED: {"CorrelationParameter": "do_abs single_direction", "NMSParameter": "num_peak"},
    _REFUSED: {"ImResizeParameter": "start_scale scale_gap"},
    _FILE: {
        "BlobProto": "raw_data_type raw_diff_type raw_data raw_diff",
        "LayerParameter": "add_param sub_param mul_param div_param",
        **dict.fromkeys(("AddParameter", "SubParameter", "MulParameter", "DivParameter"), ALL),
    },
    _RANDOM: {"DropoutParameter": "random_seed"},
}  # fmt: skip


@dataclass(frozen=True)
class IgnoredField:
    """A field that a net has, and why it changes nothing."""

    message: str
    field: str
    reason: str
    layers: tuple[str, ...]
    """The layers that have it, in order; none for a field of the net itself."""

    def __str__(self) -> str:
        first, *others = self.layers or ("",)
        more = f" and {len(others)} more" if others else ""
        place = f" (layer '{first}'{more})" if self.layers else ""
        return f"{self.message}.{self.field} is ignored{place}: {self.reason}"


def reason_to_ignore(message: str, field: str) -> str:
    """Why a field is ignored; empty where it is not."""
    for reason, messages in _REASONS.items():
        fields = messages.get(message, "")
        if fields == ALL or field in fields.split():
            return reason
    return ""


def ignored_fields(net: NetParameter) -> Sequence[IgnoredField]:
    """The ignored fields that a net in today's form has, one entry for each field."""
    places: dict[tuple[str, str], list[str]] = {(message, name): [] for message, name in _fields(net, skip="layer")}
    for layer in net.layer:
        for place in dict.fromkeys(_fields(layer, skip="blobs")):
            places.setdefault(place, []).append(layer.name)
    reasons = {place: reason_to_ignore(*place) for place in places}
    return [IgnoredField(*place, reasons[place], tuple(places[place])) for place in places if reasons[place]]


def _fields(message: Message, skip: str = "") -> Iterator[tuple[str, str]]:
    """Message and name of every field that is set, those of messages within included; not within an ignored one."""
    name = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        if field.name == skip:
            continue
        yield name, field.name
        if field.message_type is not None and not reason_to_ignore(name, field.name):
            for child in value if not isinstance(value, Message) else (value,):
                yield from _fields(child)

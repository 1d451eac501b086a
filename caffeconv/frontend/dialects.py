"""The forks of Caffe that give one name several rules, by the names under which a caller chooses one.

What a dialect decides stands in the layer's class, which reads `LayerDef.dialect`; here is the one list of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from caffeconv.errors import CaffeconvError

DIALECTS: Mapping[str, str] = {
    "akrit2013": "Akrit2013/caffe-dev: L2Norm per place",
    "bottom-up-attention": "peteanderson80/bottom-up-attention: Embed without a last axis of size 1",
    "bvlc": "BVLC Caffe 1.0: what Caffe itself does wherever it knows the name",
    "faceboxes": "FaceBoxes: PriorBox with denser anchors",
    "happynear": "happynear/caffe-windows: Normalize, Proposal",
    "hed": "HED and FCN's first fork: Crop aligns its bottoms by the windows of the layers before it",
    "mini-caffe": "luoyetx/mini-caffe: Proposal",
    "pvanet": "PVANET: Proposal",
    "refinedet": "RefineDet: DetectionOutput",
    "retrieval": "yuminsuh/caffe_retrieval: L2Norm over whole items",
    "ssd": "weiliu89/caffe, branch ssd: PriorBox, DetectionOutput",
    "synopsys": "Synopsys' caffe of the ARC processors: Reorg, Proposal",
    "tsn": "yjxiong/caffe (TSN): BN, Normalize over whole items",
    "ultinous": "Ultinous/caffe: L2Norm per place",
    "video-caffe": "video-caffe, OpenCL Caffe, Intel's: Pooling over all axes after the channels",
}
"""Name → fork, and the layers whose rule it decides."""


def checked_dialect(name: str | None) -> str | None:
    """The name itself; CaffeconvError for one that no fork here has."""
    if name is not None and (not isinstance(name, str) or name not in DIALECTS):
        raise CaffeconvError(f"`dialect={name!r}`: no such dialect; one of {', '.join(DIALECTS)} was needed")
    return name

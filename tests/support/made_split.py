"""A split made by hand, for tests of what is written about one: files of random bytes and the records of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphcut.edgetpu.estimate import Estimate, Fit
from graphcut.prediction.segment_costs import PlanCost, SegmentCost
from graphcut.records import (
    Candidate,
    ConvertedSegment,
    Independent,
    ModelInput,
    PassReport,
    Plan,
    Samples,
    SeamTensor,
    Segment,
    Source,
    Tail,
    Verification,
)
from graphcut.result import layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    source: Source
    inputs: tuple[ModelInput, ...]
    passes: tuple[PassReport, ...]
    plan: Plan
    cost: PlanCost
    samples: Samples
    segments: tuple[ConvertedSegment, ...]
    tails: tuple[Tail, ...]
    verification: Verification


def seam(index: int) -> SeamTensor:
    return SeamTensor(
        tensor=f"t{index}:0", layer=f"block{index}_out", shape=(1, 4, 4, 8), dtype="int8", scale=0.1 / 3, zero_point=-7
    )


def cost(segment: Segment) -> SegmentCost:
    return SegmentCost(
        tflite_bytes=segment.tflite_bytes,
        parameter_bytes=segment.weight_bytes,
        compiled=Estimate(expected_bytes=2000, low_bytes=1900, high_bytes=2100),
        fit=Fit(probability=0.97, room_bytes=10**6, margin_bytes=10**5),
        off_chip_bytes=0,
        macs=10**4,
        work=2 * 10**4,
        activation_bytes=256,
        seam_in_bytes=128,
        seam_out_bytes=128,
        host_in_bytes=0,
        host_out_bytes=0,
        latency_ms=0.12345,
        device="coral-usb",
    )


def make(folder: Path, k: int = 3, *, synthetic: bool = False, passed: bool = True) -> Made:
    """Write the files of a split into k segments into ``folder`` and return its records."""
    rng = np.random.default_rng(k)
    sizes = [1000 + 10 * index for index in range(1, k + 1)]
    candidates = tuple(
        Candidate(
            tensor=f"t{index}:0",
            layer=f"block{index}_out",
            position=5 * index,
            shape=(1, 8, 4, 4),
            dtype="float32",
            int8_bytes=128,
            merged=True,
            downsampled=index > 1,
            pre_activation=False,
            weight_bytes_before=900 * index,
            weight_bytes_between=900,
            tensors=(f"t{index}:0",),
            layers=(f"block{index}_out",),
        )
        for index in range(1, k)
    )
    planned = []
    converted = []
    for index, size in enumerate(sizes, start=1):
        common = {
            "index": index,
            "start": 5 * (index - 1),
            "stop": 5 * index,
            "inputs": (f"t{index - 1}:0",),
            "outputs": (f"t{index}:0",),
            "input_layers": (f"block{index - 1}_out",),
            "output_layers": (f"block{index}_out",),
            "weight_bytes": 900,
        }
        planned.append(Segment(**common, tflite_bytes=size + 1))
        onnx_path, tflite_path = layout.segment_onnx(folder, index), layout.segment_tflite(folder, index)
        for path, amount in ((onnx_path, 4 * size), (tflite_path, size)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(amount))
        converted.append(
            ConvertedSegment(
                segment=Segment(**common, tflite_bytes=size),
                onnx_path=onnx_path,
                tflite_path=tflite_path,
                inputs=(seam(index - 1),),
                outputs=(seam(index),),
                float_error=1e-6 * index,
                sqnr_db={f"block{index}_out": 30.5 + index},
                backend="flatbuffer_direct",
                notes=("2 dead channels cured",) if index == 1 else (),
                seconds=1.5,
            )
        )
    tails = []
    for first in range(1, max(k, 2)):
        path = layout.tail_tflite(folder, first, k)
        if k == 1:  # the unsplit model is the segment
            path = layout.segment_tflite(folder, 1)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rng.bytes(sum(sizes[first - 1 :])))
        tails.append(
            Tail(
                first=first,
                last=k,
                tflite_path=path,
                tflite_bytes=path.stat().st_size,
                inputs=(seam(first - 1),),
                outputs=(seam(k),),
            )
        )
    arrays = {"t0:0": rng.random((2, 8, 4, 4), np.float32)}
    return Made(
        source=Source(kind="onnx", name="toy.onnx", sha256="0" * 64),
        inputs=(ModelInput(name="t0:0", shape=(1, 8, 4, 4), source_layout="NHWC", source_shape=(1, 4, 4, 8)),),
        passes=(PassReport(name="matmul-to-gemm", reason="per-channel", matches=1, relative_error=0.0),),
        plan=Plan(
            strategy="greedy",
            budget_bytes=2000,
            candidates=candidates,
            segments=tuple(planned),
            minimal_k=k,
            lower_bound=k - 1,
        ),
        cost=PlanCost(segments=tuple(cost(each) for each in planned)),
        samples=Samples(
            arrays=arrays,
            names=("a.png", "b.png"),
            origin="random" if synthetic else "folder photos",
            synthetic=synthetic,
            sha256="1" * 64,
        ),
        segments=tuple(converted),
        tails=tuple(tails),
        verification=Verification(
            passed=passed,
            verdict="PASSED" if passed else "FAILED",
            exact=True,
            float_exact=True,
            samples=2,
            synthetic_calibration=synthetic,
            sqnr_db={"block1_out": 31.5, "logits": 25.25},
            top1_agreement=0.5,
            worst_sample={"block1_out": "a.png", "logits": "b.png"},
            independent=Independent(exact=False, differing_share=0.25, largest_step=1, sqnr_db=41.5),
            runtime="ai-edge-litert 2.1.2, reference kernels",
            findings=() if passed else ("logits are constant",),
        ),
    )

"""A smaller encoder.onnx: 8-bit integers or float16 in place of float32.

Only the image network changes. The pixels' normalisation, the heads that give logits and
embedding, and decoder_step.onnx stay in float32: they are little work, and a label set's
probability is a product of many of their outputs. Inputs and outputs keep names, types and shapes.

int8    Static quantisation (Jacob et al., CVPR 2018): the range of every activation is measured on
        photos. Weights have a scale for each output channel. Nodes are between QuantizeLinear and
        DequantizeLinear (QDQ), which runtimes turn into integer arithmetic. Weights use 7 of the
        8 bits: without VNNI instructions, a CPU adds two products in 16 bits, which would overflow
        without an error.
float16 Half the size. GPUs and some ARM CPUs compute in it; others convert to float32 and gain no
        time.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from images.transforms import Transform
from inference.batches import load_batches
from report.inputs import Inputs
from util.errors import RunError, UsageError
from util.log import counted, log

if TYPE_CHECKING:
    import onnx

MOST_PHOTOS, FEW_PHOTOS, AT_ONCE = 200, 50, 10  # for the ranges; AT_ONCE: in a batch
# a matrix product or what stands between two; norms and softmax need float32
QUANTISED = ("Conv", "MatMul", "Gemm", "Add", "Relu", "Clip", "MaxPool", "AveragePool")
IMAGE_NETWORK = "model.encoder:"  # in the scopes that torch's exporter writes to each node


def read_photos(inputs: Inputs, transform: Transform) -> Iterator[np.ndarray]:
    """At most MOST_PHOTOS of these photos, from all parts of the list, as batches B×3×S×S uint8.

    Says on stderr how many. Raises UsageError if none can be read.
    """
    step = -(-len(inputs.names) // MOST_PHOTOS)  # rounded up
    names, num_read = inputs.names[::step], 0
    log(f"measuring the ranges of activations on {counted(len(names), 'photo')} of {inputs.root}")
    if len(names) < FEW_PHOTOS:
        log(f"note: these are few; {FEW_PHOTOS} or more, of all kinds, give better ranges")
    for images, _, errors in load_batches(inputs.root, names, transform, AT_ONCE, num_workers=0):
        for _, error in errors:
            log(f"note: {error}; left out")
        num_read += len(images)
        if len(images):
            yield np.ascontiguousarray(images.numpy())
    if not num_read:
        raise UsageError(f"none of the photos in {inputs.root} can be read")


def to_int8(encoder: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """encoder.onnx with the image network in 8-bit integers.

    batches: photos B×3×S×S uint8 as the network will see them; their activations set the ranges.
    Raises RunError if onnxruntime cannot quantise the network.
    """
    import onnx  # imported here: it is optional, as is onnxruntime
    from onnxruntime import quantization

    network = onnx.load_from_string(encoder)
    others = _outside(network)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        try:
            # it advises to fold BatchNorm into the convolutions; torch's exporter has done so
            logging.disable(logging.WARNING)
            quantization.quantize_static(
                network,
                path,
                _Reader(batches),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=others,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )
        except UsageError:  # from the photos
            raise
        except Exception as error:  # onnxruntime's errors have no common class
            raise RunError(f"onnxruntime cannot quantise the network ({_first(error)})") from error
        finally:
            logging.disable(logging.NOTSET)
        return _with_metadata(onnx.load(path), onnx.load_from_string(encoder))


def to_float16(encoder: bytes) -> bytes:
    """encoder.onnx with the image network in float16. Raises RunError if it cannot be converted."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    network = onnx.load_from_string(encoder)
    others = _outside(network)
    try:
        smaller = convert_float_to_float16(network, keep_io_types=True, node_block_list=others)
    except Exception as error:  # its errors have no common class
        raise RunError(f"the network cannot be converted to float16 ({_first(error)})") from error
    return _with_metadata(smaller, onnx.load_from_string(encoder))


class _Reader:
    """Batches of photos as onnxruntime's CalibrationDataReader."""

    def __init__(self, batches: Iterable[np.ndarray]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def _outside(network: onnx.ModelProto) -> list[str]:
    """The names of the nodes that are not part of the image network. Raises RunError."""
    names = []
    for node in network.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        if IMAGE_NETWORK not in scopes.get("namespace", ""):
            names.append(node.name)
    if len(names) == len(network.graph.node):
        raise RunError("torch's ONNX exporter does not say what is the encoder: update torch")
    return names


def _with_metadata(smaller: onnx.ModelProto, network: onnx.ModelProto) -> bytes:
    """The smaller network as a file, with the metadata of the other one."""
    del smaller.metadata_props[:]
    smaller.metadata_props.extend(network.metadata_props)
    return smaller.SerializeToString()


def _first(error: Exception) -> str:
    """The first line of an error's message, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

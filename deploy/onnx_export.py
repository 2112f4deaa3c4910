"""A trained model as ONNX files, compared with PyTorch before they are written.

There are two networks, because decoding is a loop that the user of the files writes:

    encoder        images B×3×S×S uint8  ->  cnn_logits B×C, image_embedding B×E
    decoder_step   state N×S, label N int64, image_embedding N×E, cnn_logits N×C
                   ->  logits N×C, new_state N×S

Each row of decoder_step is the beginning of a label set. It reads `label`, a rank, or -1 at the
start, where nothing has been read and the state is zero. Entry j of `logits` is then the logit of
label j, for all j ranked after the last label read. B and N are free. Decoder `none` has neither
decoder_step nor image_embedding: its cnn_logits are calibrated logits.

Each file stands alone: all other facts a user needs are in its ONNX metadata_props, see `metadata`
(https://onnx.ai/onnx/repo-docs/IR.html).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from images.transforms import Preprocessing
from labels.rules import Rule
from labels.vocabulary import Vocabulary
from labels.write import LabelCells
from model import HybridNet
from util.compat import can_export
from util.errors import RunError, UsageError

if TYPE_CHECKING:
    import onnxruntime

FORMAT_VERSION = "hybridnet-onnx-1"
# allowed difference of logits and states, beside a ten-thousandth of their size; a probability
# changes by at most a quarter of a logit's difference
TOLERANCE = 1e-3
ROWS = 4  # label sets per image in the check of the decoder
STEPS = 5  # labels in each of them


class EncoderNetwork(nn.Module):
    """The encoder as it is exported."""

    outputs = ("cnn_logits", "image_embedding")

    def __init__(self, model: HybridNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """B×3×S×S uint8 -> B×C and, if the decoder has a joint space, B×E."""
        encoding = self.model.encode(images)
        if encoding.image_embedding.shape[1]:
            return encoding.cnn_logits, encoding.image_embedding
        return (self.model.decoder.set_logits(encoding, targets=None),)


class DecoderStep(nn.Module):
    """One step of the decoder as it is exported: reads one label, returns the next logits."""

    outputs = ("logits", "new_state")

    def __init__(self, model: HybridNet) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self, state: Tensor, label: Tensor, image_embedding: Tensor, cnn_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """N×S, N, N×E, N×C -> N×C, N×S; where label is -1 the state stays as it is."""
        read = self.decoder.advance(state, label.clamp_min(0))
        state = torch.where((label >= 0)[:, None], read, state)
        return self.decoder.logits(state, image_embedding, cnn_logits), state


def metadata(
    model_settings: dict,
    vocabulary: Vocabulary,
    preprocessing: Preprocessing,
    threshold: float,
    rules: Sequence[Rule] = (),
) -> dict[str, str]:
    """metadata_props of both files. ONNX allows only strings; labels and rules are JSON lists.

    cells: the labels as a table of predictions has them; empty if no table can have them.
    """
    try:
        cells = list(LabelCells(vocabulary.labels).written.values())
    except UsageError:
        cells = []
    return {
        "format": FORMAT_VERSION,
        "decoder": model_settings["decoder"],
        "labels": json.dumps(vocabulary.labels, ensure_ascii=False),
        "image_size": str(preprocessing.image_size),
        "threshold": repr(float(threshold)),
        "cells": json.dumps(cells, ensure_ascii=False),
        "rules": json.dumps([[rule.kind, rule.labels] for rule in rules]),
    }


def to_onnx(model: HybridNet, constants: Mapping[str, str]) -> dict[str, bytes]:
    """The contents of the files by name: encoder and, unless the decoder is `none`, decoder_step.

    model: in test mode, on the CPU. constants: from `metadata`. Raises RunError if torch's
    exporter fails.
    """
    size = int(constants["image_size"])
    encoder = EncoderNetwork(model)
    images = {"images": torch.zeros(2, 3, size, size, dtype=torch.uint8)}
    files = {"encoder": _export(encoder, images, constants)}
    if constants["decoder"] != "none":
        with torch.no_grad():
            cnn_logits, image_embedding = encoder(**images)
        example = {
            "state": model.decoder.initial_state(2),
            "label": torch.zeros(2, dtype=torch.int64),
            "image_embedding": image_embedding,
            "cnn_logits": cnn_logits,
        }
        files["decoder_step"] = _export(DecoderStep(model), example, constants)
    return files


def _export(network: nn.Module, example: dict[str, Tensor], constants: Mapping[str, str]) -> bytes:
    """One network as an ONNX file whose inputs may have any number of rows."""
    outputs = network.outputs[: len(network.eval()(**example))]
    try:
        with warnings.catch_warnings():
            # torch warns of its own deprecations, which a user cannot act on
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                kwargs=example,
                input_names=list(example),
                output_names=list(outputs),
                dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC} for name in example},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors have no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "" if can_export() else f"; use torch 2.11 or newer, not {torch.__version__}"
        raise RunError(f"torch's ONNX exporter failed ({reason}){hint}") from error
    program.model.metadata_props.update(constants)
    return program.model_proto.SerializeToString()


@torch.no_grad()
def largest_differences(
    model: HybridNet, files: Mapping[str, bytes], images: Tensor
) -> dict[str, float]:
    """Run the files with onnxruntime beside PyTorch; return each file's largest difference.

    images: B×3×S×S uint8. The decoder reads random beginnings of label sets. Each runtime keeps
    its own states, so that errors accumulate as in use. Raises RunError if a difference is above
    TOLERANCE.
    """
    ours = EncoderNetwork(model)(images)
    sessions = {name: open_session(data) for name, data in files.items()}
    theirs = sessions["encoder"].run(None, {"images": images.numpy()})
    found = {"encoder": _compare("encoder", EncoderNetwork.outputs, ours, theirs)}
    if "decoder_step" in sessions:
        found["decoder_step"] = _compare_steps(
            model, sessions["decoder_step"], *(part.repeat_interleave(ROWS, 0) for part in ours)
        )
    return found


def _compare_steps(
    model: HybridNet,
    session: onnxruntime.InferenceSession,
    cnn_logits: Tensor,
    image_embedding: Tensor,
) -> float:
    """The largest difference over all steps; each row reads random ranks in ascending order."""
    step = DecoderStep(model).eval()
    num_rows, num_labels = cnn_logits.shape
    order = torch.rand(num_rows, num_labels, generator=torch.Generator().manual_seed(0)).argsort(1)
    read = order[:, :STEPS].sort(1).values  # N×min(STEPS, C)
    labels = torch.cat([torch.full((num_rows, 1), -1), read], dim=1)
    state = their_state = model.decoder.initial_state(num_rows)
    encoding = {"image_embedding": image_embedding, "cnn_logits": cnn_logits}
    largest = 0.0
    for label in labels.T.contiguous():
        ours = step(state, label, **encoding)
        given = {"state": their_state, "label": label, **encoding}
        theirs = session.run(None, {name: np.asarray(array) for name, array in given.items()})
        largest = max(largest, _compare("decoder_step", DecoderStep.outputs, ours, theirs))
        state, their_state = ours[1], theirs[1]
    return largest


def _compare(file: str, outputs: tuple[str, ...], ours: tuple, theirs: list[np.ndarray]) -> float:
    """The largest difference of a network's outputs. Raises RunError if it is above TOLERANCE."""
    largest = 0.0
    for name, expected, found in zip(outputs, ours, theirs, strict=False):  # `none` has one output
        expected = expected.numpy()
        difference = float(np.abs(expected - found).max(initial=0))
        if not np.allclose(found, expected, rtol=TOLERANCE / 10, atol=TOLERANCE):
            raise RunError(
                f"{file}.onnx does not agree with the model ({name} differs by {difference:.2g}), "
                "so nothing was written; try other versions of onnx, onnxscript and onnxruntime"
            )
        largest = max(largest, difference)
    return largest


def open_session(data: bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU with as many threads as PyTorch has, which logs only errors."""
    import onnxruntime  # imported here: it is optional

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

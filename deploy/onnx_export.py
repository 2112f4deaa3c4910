"""A trained model as ONNX, checked against PyTorch before anyone gets it.

Two networks, for decoding is a loop that belongs to whoever uses them:

    encoder        images B×3×S×S uint8  ->  cnn_logits B×C, image_embedding B×E
    decoder_step   hidden N×H, cell N×H, label N int64, image_embedding N×E, cnn_logits N×C
                   ->  logits N×C, new_hidden N×H, new_cell N×H

A row of decoder_step is one beginning of a label set: it reads `label` (a rank, or -1 at the start,
when nothing has been read and both states are zero), and entry j of `logits` is then the log-odds
of label j, for all j ranked after the last label read. B and N are free. The independent control
(`none`) has no decoder_step and no image_embedding: its cnn_logits are calibrated log-odds.

What else a user needs is in the metadata of either file, so that a file stands alone (ONNX's
metadata_props, https://onnx.ai/onnx/repo-docs/IR.html): see `metadata`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from images.transforms import Preprocessing
from labels.vocabulary import Vocabulary
from model import HybridNet
from util.errors import RunError

FORMAT_VERSION = "hybridnet-onnx-1"
# of log-odds and states, beside a ten-thousandth of their size: no probability moves by more than
# a quarter of it
TOLERANCE = 1e-3
ROWS = 4  # label sets begun for each picture in the check of the decoder
STEPS = 5  # labels read by each of them


class EncoderNetwork(nn.Module):
    """What is exported of the encoder: arrays in, arrays out."""

    outputs = ("cnn_logits", "image_embedding")

    def __init__(self, model: HybridNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """B×3×S×S uint8 -> B×C and, if there is a joint space, B×E."""
        encoding = self.model.encode(images)
        if encoding.image_embedding.shape[1]:
            return encoding.cnn_logits, encoding.image_embedding
        return (self.model.decoder.set_logits(encoding, targets=None),)


class DecoderStep(nn.Module):
    """What is exported of the decoder: one label read, the log-odds of all that may follow."""

    outputs = ("logits", "new_hidden", "new_cell")

    def __init__(self, model: HybridNet) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self,
        hidden: Tensor,
        cell: Tensor,
        label: Tensor,
        image_embedding: Tensor,
        cnn_logits: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """N×H, N×H, N, N×E, N×C -> N×C, N×H, N×H; where label is -1, nothing is read."""
        read = self.decoder.advance((hidden, cell), label.clamp_min(0))
        is_label = (label >= 0)[:, None]
        hidden = torch.where(is_label, read[0], hidden)
        cell = torch.where(is_label, read[1], cell)
        return self.decoder.logits(hidden, image_embedding, cnn_logits), hidden, cell


def metadata(
    model_settings: dict, vocabulary: Vocabulary, preprocessing: Preprocessing, threshold: float
) -> dict[str, str]:
    """Both files' metadata_props: strings, as ONNX has nothing else; labels are a JSON list."""
    found = {
        "format": FORMAT_VERSION,
        "decoder": model_settings["decoder"],
        "labels": json.dumps(vocabulary.labels, ensure_ascii=False),
        "image_size": str(preprocessing.image_size),
        "threshold": repr(float(threshold)),
    }
    if model_settings["decoder"] != "none":
        found["hidden_size"] = str(model_settings["hidden_size"])
    return found


def to_onnx(model: HybridNet, constants: Mapping[str, str]) -> dict[str, bytes]:
    """The files' contents by name: encoder and, but for `none`, decoder_step. model in test mode.

    Raises RunError when torch's exporter fails.
    """
    size = int(constants["image_size"])
    encoder = EncoderNetwork(model)
    images = {"images": torch.zeros(2, 3, size, size, dtype=torch.uint8)}
    files = {"encoder": _export(encoder, images, constants)}
    if constants["decoder"] != "none":
        with torch.no_grad():
            cnn_logits, image_embedding = encoder(**images)
        # copies, for one tensor given twice becomes one input: the cell would be read for both
        hidden, cell = (state.clone() for state in model.decoder.initial_state(2))
        example = {
            "hidden": hidden,
            "cell": cell,
            "label": torch.zeros(2, dtype=torch.int64),
            "image_embedding": image_embedding,
            "cnn_logits": cnn_logits,
        }
        files["decoder_step"] = _export(DecoderStep(model), example, constants)
    return files


def _export(network: nn.Module, example: dict[str, Tensor], constants: Mapping[str, str]) -> bytes:
    """One network as an ONNX file whose arrays may have any number of rows."""
    outputs = network.outputs[: len(network.eval()(**example))]
    try:
        with warnings.catch_warnings():
            # of names given to an axis and of torch's own deprecations: nothing a user can act on
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
    except Exception as error:  # the exporter has a tree of its own errors, over many lines
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"torch's ONNX exporter failed ({reason})") from error
    program.model.metadata_props.update(constants)
    return program.model_proto.SerializeToString()


@torch.no_grad()
def largest_differences(
    model: HybridNet, files: Mapping[str, bytes], images: Tensor
) -> dict[str, float]:
    """Run the files with onnxruntime beside PyTorch: the largest difference by file.

    images B×3×S×S uint8. The decoder reads random beginnings of label sets, each runtime its own
    states, so that errors add up as in use. Raises RunError where a difference is too large.
    """
    ours = EncoderNetwork(model)(images)
    sessions = {name: _session(data) for name, data in files.items()}
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
    """The largest difference over the steps of all rows; each reads ascending random ranks."""
    step = DecoderStep(model).eval()
    num_rows, num_labels = cnn_logits.shape
    order = torch.rand(num_rows, num_labels, generator=torch.Generator().manual_seed(0)).argsort(1)
    read = order[:, :STEPS].sort(1).values  # N×min(STEPS, C)
    labels = torch.cat([torch.full((num_rows, 1), -1), read], dim=1)
    ours = theirs = model.decoder.initial_state(num_rows)
    encoding = {"image_embedding": image_embedding, "cnn_logits": cnn_logits}
    largest = 0.0
    for label in labels.T.contiguous():
        ours = step(*ours, label, **encoding)
        given = {"hidden": theirs[0], "cell": theirs[1], "label": label, **encoding}
        theirs = session.run(None, {name: np.asarray(array) for name, array in given.items()})
        largest = max(largest, _compare("decoder_step", DecoderStep.outputs, ours, theirs))
        ours, theirs = ours[1:], theirs[1:]
    return largest


def _compare(file: str, outputs: tuple[str, ...], ours: tuple, theirs: list[np.ndarray]) -> float:
    """The largest difference of a network's outputs. Raises RunError where one is too large."""
    largest = 0.0
    for name, expected, found in zip(outputs, ours, theirs, strict=False):  # none: one output
        expected = expected.numpy()
        difference = float(np.abs(expected - found).max(initial=0))
        if not np.allclose(found, expected, rtol=TOLERANCE / 10, atol=TOLERANCE):
            raise RunError(
                f"{file}.onnx would not say what the model says ({name} differs by "
                f"{difference:.2g}), so nothing was written; try other versions of onnx, "
                "onnxscript and onnxruntime"
            )
        largest = max(largest, difference)
    return largest


def _session(data: bytes) -> onnxruntime.InferenceSession:
    """On the CPU, with as many threads as PyTorch has; only errors are told."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

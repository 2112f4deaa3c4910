"""Start a run at the weights of an earlier one: `train.py --start_from`."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.checkpoint import load_checkpoint, restore
from labels.vocabulary import Vocabulary
from model import HybridNet, settings_of
from util.errors import UsageError
from util.log import counted, log, some

MAY_DIFFER = ("freeze_encoder",)  # of the model's settings


def load_start(path: Path, settings: dict[str, object]) -> dict:
    """The checkpoint to start from.

    Raises UsageError if it cannot be read, or if a setting of its model is not as in `settings`.
    """
    checkpoint = load_checkpoint(path)
    for name, value in settings_of(checkpoint["model"]).items():
        if name not in MAY_DIFFER and value != settings[name]:
            raise UsageError(
                f"--start_from {path} has {name} {value}, this run has {settings[name]}: "
                f"give --{name} {value}"
            )
    return checkpoint


def copy_weights(model: HybridNet, vocabulary: Vocabulary, path: Path, checkpoint: dict) -> None:
    """Give `model` a checkpoint's weights, those of each label to the label of the same name.

    New labels keep what the model has. Logs which labels are new and which are gone. path: of the
    checkpoint, for messages. Raises UsageError if its parts do not fit together.
    """
    source, old, _ = restore(checkpoint, path)
    shared = [label for label in vocabulary.labels if label in old.rank]
    here = torch.tensor([vocabulary.rank[label] for label in shared], dtype=torch.long)
    there = torch.tensor([old.rank[label] for label in shared], dtype=torch.long)
    size = checkpoint["preprocessing"]["image_size"]
    by_label = parameters_by_label({**checkpoint["model"], "image_size": size})
    weights = source.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name not in by_label:
                if tensor.shape != weights[name].shape:  # of an encoder that takes one size only
                    raise UsageError(
                        f"--start_from {path} was trained on images of another size: give "
                        f"--image_size {size}"
                    )
                tensor.copy_(weights[name])
                continue
            tensor[here] = weights[name][there]
            tensor[len(vocabulary) :] = weights[name][len(old) :]  # END of the decoder softmax
    new = [label for label in vocabulary.labels if label not in old.rank]
    gone = [label for label in old.labels if label not in vocabulary.rank]
    changes = [
        f"{what}: {some(labels)}" for what, labels in (("new", new), ("gone", gone)) if labels
    ]
    log(
        f"starting from {path} (epoch {checkpoint['epoch']}): the weights of "
        f"{'; '.join([counted(len(shared), 'label'), *changes])}"
    )


def parameters_by_label(settings: dict[str, object]) -> set[str]:
    """The names of the parameters that have a row for each label: one label more is a row more.

    settings: arguments of HybridNet.
    """
    with torch.device("meta"):
        models = [HybridNet(number, **settings).state_dict() for number in (1, 2)]
    shapes: list[dict[str, torch.Size]] = [{k: v.shape for k, v in m.items()} for m in models]
    return {name for name, shape in shapes[0].items() if shapes[1][name] != shape}

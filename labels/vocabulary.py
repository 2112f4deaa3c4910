"""The labels that a model knows, ranked by their share of the training images.

build_vocab.py writes a vocabulary, train.py reads it, every checkpoint contains it. The file is a
dictionary of plain types, as pickle (`.pkl`) or JSON (`.json`). Other types in a pickle are
refused, so a vocabulary file cannot run code.

>>> vocabulary = Vocabulary(("person", "dog"), counts=(7, 2), num_images=8)
>>> vocabulary.rank["dog"]
1
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import pickletools
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from util.errors import UsageError
from util.files import write_whole
from util.reading import read_bytes

FORMAT_VERSION = "hybridnet-vocabulary-1"
MOST_BYTES = 100_000_000  # of a file: a million labels of 100 letters
MOST = 2**53  # images: a float counts no further
HALVES = re.compile("[\ud800-\udfff]")  # surrogates
# The opcodes of save_vocabulary's pickles, and of other plain values. Not among them: imports;
# calls; tuples (nested ones can take forever to hash); memo entries by number (a high one costs
# gigabytes).
PLAIN_OPCODES = re.compile(
    "PROTO|FRAME|MARK|STOP|MEMOIZE|BINGET|LONG_BINGET|EMPTY_DICT|SETITEMS?|EMPTY_LIST|APPENDS?|"
    "SHORT_BINUNICODE|BINUNICODE8?|BININT[12]?|LONG1|BINFLOAT|NONE|NEWTRUE|NEWFALSE"
)


@dataclass(frozen=True)
class Vocabulary:
    """Labels in rank order: `labels[0]` is the most frequent one.

    `counts[i]` is the number of training images with `labels[i]`, of `num_images` in all. Of these,
    the annotations of `known[i]` say whether it is there; `known` is empty if all do.
    `dropped`: labels that are too rare. They are known, and ignored wherever they occur.
    `normalised`: other spellings of a label count as the label, see tags.py.
    """

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    num_images: int
    dropped: tuple[str, ...] = ()
    normalised: bool = False
    known: tuple[int, ...] = ()
    rank: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", {label: i for i, label in enumerate(self.labels)})

    def __len__(self) -> int:
        return len(self.labels)

    def prior_logits(self) -> list[float]:
        """The logit of each label's share of the training images where it is known.

        0.5 is added to each count.
        """
        pairs = zip(self.counts, self.totals(), strict=True)
        return [math.log((n + 0.5) / (total - n + 0.5)) for n, total in pairs]

    def totals(self) -> tuple[int, ...]:
        """On how many training images it is known whether each label is there."""
        return self.known or (self.num_images,) * len(self)

    def to_dict(self) -> dict:
        """Plain built-in types only, for files and checkpoints."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del plain["rank"]
        if not self.known:  # as in older files
            del plain["known"]
        return {"format": FORMAT_VERSION, **plain}

    @classmethod
    def from_dict(cls, data: object, source: str) -> Vocabulary:
        """A checked vocabulary from what `to_dict` returned. Raises UsageError naming `source`."""
        if not isinstance(data, dict) or data.get("format") != FORMAT_VERSION:
            raise UsageError(
                f"{source} is not a HybridNet vocabulary; make one with "
                "`python build_vocab.py --annotations FILE --vocab_path PATH`"
            )
        labels, counts, dropped = (data.get(k) for k in ("labels", "counts", "dropped"))
        num_images, normalised = data.get("num_images"), data.get("normalised")
        known = data.get("known", [])
        well_formed = (
            _is_list_of(labels, str)
            and _is_list_of(dropped, str)
            and _is_list_of(counts, int)
            and type(num_images) is int
            and num_images < MOST
            and isinstance(normalised, bool)
            and 0 < len(labels) == len(counts) == len(set(labels))
            and all(0 <= n <= num_images for n in counts)
            and _is_list_of(known, int)
            and len(known) in (0, len(counts))
            and all(n <= k <= num_images for n, k in zip(counts, known, strict=False))
        )
        if not well_formed:
            raise UsageError(f"{source} is a damaged vocabulary; make it again with build_vocab.py")
        return cls(
            tuple(labels), tuple(counts), num_images, tuple(dropped), normalised, tuple(known)
        )


def _is_list_of(values: object, kind: type) -> bool:
    """Whether all are exactly of that type (true is not 1), and texts have no half characters."""
    return isinstance(values, list) and all(
        type(v) is kind and (kind is not str or not HALVES.search(v)) for v in values
    )


def count_labels(
    label_sets: list[tuple[str, ...]],
    categories: list[str],
    min_count: int = 1,
    normalised: bool = False,
    unknown: list[tuple[str, ...]] | None = None,
) -> Vocabulary:
    """Rank labels by their share of the images where they are known; ties go by name.

    `label_sets`: the labels of each training image. `categories`: all names that may occur. Labels
    on fewer than `min_count` images are listed as dropped. `unknown`: the labels of each image that
    may be there or not. To the number of images with a label and without it, 0.5 is added.
    """
    counts = Counter(label for labels in label_sets for label in set(labels))
    hidden = Counter(label for labels in unknown or () for label in labels)
    total = len(label_sets)

    def share(label: str) -> float:
        return (counts[label] + 0.5) / (total - hidden[label] + 1)

    ranked = sorted({*categories, *counts}, key=lambda label: (-share(label), label))
    ranked.sort(key=lambda label: counts[label] < min_count)  # stable: the dropped ones come last
    kept = [label for label in ranked if counts[label] >= min_count]
    known = tuple(total - hidden[label] for label in kept)
    return Vocabulary(
        labels=tuple(kept),
        counts=tuple(counts[label] for label in kept),
        num_images=total,
        dropped=tuple(ranked[len(kept) :]),
        normalised=normalised,
        known=known if any(n < total for n in known) else (),
    )


def check_suffix(path: Path) -> None:
    """Raise UsageError unless the name ends in `.pkl` or `.json`."""
    if path.suffix not in (".pkl", ".json"):
        raise UsageError(f"--vocab_path {path} must end in .pkl or .json")


def check_replaceable(path: Path) -> None:
    """Raise UsageError if there is a file that is no vocabulary."""
    if os.path.lexists(path):
        try:
            load_vocabulary(path)
        except UsageError:
            raise UsageError(
                f"{path} is no vocabulary and is not replaced: choose another --vocab_path"
            ) from None


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write pickle or JSON, as the suffix says. Raises UsageError for any other suffix."""
    check_suffix(path)
    if path.suffix == ".pkl":
        data = pickle.dumps(vocabulary.to_dict(), protocol=4)
    else:
        data = json.dumps(vocabulary.to_dict(), indent=1, ensure_ascii=False).encode()
    write_whole(path, data)


def load_vocabulary(path: Path) -> Vocabulary:
    """Read what `save_vocabulary` wrote. Raises UsageError if the file is missing or invalid."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read the vocabulary {path} ({error.strerror})") from None
    try:
        with_json = path.suffix == ".json"
        plain = json.loads(data) if with_json else _PlainUnpickler.read(data)
    except Exception:  # a damaged pickle can raise nearly any error, and none would help the user
        plain = None
    return Vocabulary.from_dict(plain, str(path))


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every import: built-in containers, strings and numbers need none."""

    def find_class(self, module: str, name: str) -> None:
        raise pickle.UnpicklingError(f"{module}.{name} is not a plain type")

    @classmethod
    def read(cls, data: bytes) -> object:
        for opcode, *_ in pickletools.genops(data):
            if not PLAIN_OPCODES.fullmatch(opcode.name):
                raise pickle.UnpicklingError(f"{opcode.name} does not make a plain type")
        return cls(io.BytesIO(data)).load()

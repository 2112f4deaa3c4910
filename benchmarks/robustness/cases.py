"""The table of label_cases.py: label files and folders as people have them, with right answers.

The inputs lie in one folder for all cases, ../shared/cases. tests/labels/case_copies.py writes
most of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

BASE = "p0 cat dog, p1 dog, p2 cat, p3 cat hat, p4 hat dog, p5 cat dog hat, p6 hat, p7 dog cat"
SIX = "0 cat dog, 1 dog, 2 cat, 3 cat hat, 4 hat dog, 5 cat dog hat"
PAIR = "c cat, d dog"
CVAT_VOC = "my_photo_1 cat dog, my_photo_2 dog, plain3 cat, plain4 dog"
FIFTYONE = "000000 hat, 000001 dog, 000002 hat cat, 000003 dog, 000004 hat cat, 000005 hat"


@dataclass(frozen=True)
class Right:
    """A right answer: how many images each label is on; of how many images; maybe more.

    files: the stem of each image with its labels, as in BASE. splits: how many images each has.
    """

    counts: dict[str, int]
    images: int
    files: str = ""
    splits: dict[str, int] | None = None


def base(files: str = BASE, **more: object) -> Right:
    """The answer that these images have."""
    sets = [each.split()[1:] for each in files.split(", ")]
    return Right(dict(Counter(label for s in sets for label in s)), len(sets), files, **more)


@dataclass(frozen=True)
class Case:
    """annotations, image_path: below the folder of all cases. Without annotations they are found.

    right: the answers that are right. stops: a pattern in the message, if it is right to stop.
    find: whether the images are there to be found. options: flags, as ReadOptions has them.
    """

    name: str
    annotations: str | None
    image_path: str
    right: tuple[Right, ...] = ()
    stops: str = ""
    find: bool = True
    options: dict[str, object] = field(default_factory=dict)


PLANET = {
    "agriculture": 11,
    "primary": 5,
    "water": 7,
    "cloudy": 8,
    "haze": 5,
    "road": 8,
    "clear": 3,
}
HEAD = {"haze": 3, "primary": 8, "agriculture": 3, "clear": 5, "water": 3, "habitation": 1}
HEAD |= {"road": 1, "cultivation": 1}
CELEBA = Right({"Bald": 7, "Smiling": 4, "Young": 9, "Eyeglasses": 6}, 12)
NIH = {"Mass": 5, "Hernia": 4, "Nodule": 5, "Oedema": 4}
LONG = {"red dress": 2, "blue hat": 2, "blue dress": 2, "red shoe": 2, "red hat": 2}
LONG |= {"blue shoe": 2, "red bag": 2, "blue bag": 2}
ROBOFLOW = Right({"cat": 12, "dog": 11}, 16, splits={"train": 8, "val": 4, "test": 4})
SPLIT_88 = Right({"cat": 8, "dog": 8}, 16, splits={"train": 8, "val": 8})
SUFFIXES = Right({"cat": 6, "cup": 4, "dog": 4, "hat": 4, "pen": 4}, 22)
CHEXPERT = {"cat": 5, "hat": 4}  # dog is blank or -1, which is not known: on no image
SEPARATORS = "separat|--separator"


def tables(folder: str, images: str, names: str, **answer: object) -> list[Case]:
    """A case for each of these tables in one folder."""
    return [
        Case(f"{folder}/{name}", f"{folder}/{name}", f"{folder}/{images}", **answer)
        for name in names.split()
    ]


CASES: list[Case] = [
    *tables("planet", "train-jpg", "train_v2.csv", right=(Right(PLANET, 24),)),
    *tables("planet_head", "train-jpg", "labels.csv", right=(Right(HEAD, 8),)),
    *tables("hpa", "train", "train.csv", stops="several|--label_names|_blue|_red|_green"),
    *tables(
        "nih",
        ".",
        "Data_Entry_2017.csv",
        right=(Right(NIH | {"No Finding": 2}, 12), Right(NIH, 12)),
    ),
    *tables("celeba", "img_align_celeba", "list_attr_celeba.csv", right=(CELEBA,)),
    *tables("celeba", "img_align_celeba", "list_attr_celeba.txt", right=(CELEBA,)),
    *tables("numpy_repr", "im", "numpy.csv set.csv json.csv ls.csv", right=(base(),)),
    *tables("labelstudio", "im", "export.csv export.json export-min.json", right=(base(),)),
    *tables("cvat", "im", "annotations.xml", right=(base(),)),
    *(
        Case(f"cvat_voc/{part}{how}", given, f"cvat_voc/{part}{images}", (base(CVAT_VOC),))
        for part in ("tags_default", "tags_train", "boxes_train")
        for how, given, images in (
            (", given", f"cvat_voc/{part}", "/JPEGImages"),
            (", twice", f"cvat_voc/{part}", ""),
            ("", None, ""),
        )
    ),
    Case(
        "cvat_voc/tags_default, a list",
        "cvat_voc/tags_default/ImageSets/Main/default.txt",
        "cvat_voc/tags_default/JPEGImages",
        right=(base(CVAT_VOC),),
    ),
    Case("cvat_voc", None, "cvat_voc", stops="tags_default|boxes_train"),
    *tables("fiftyone", "data", "labels.json", right=(base(FIFTYONE),)),
    Case("fiftyone, its folder", None, "fiftyone", right=(base(FIFTYONE),)),
    Case("roboflow", None, "roboflow/ds", right=(ROBOFLOW,)),
    Case("roboflow, given", "roboflow/ds", "roboflow/ds", right=(ROBOFLOW,)),
    Case("roboflow, above", None, "roboflow", right=(ROBOFLOW,), stops=r"_classes\.csv"),
    Case("roboflow, one part", None, "roboflow/ds/train", right=(Right({"cat": 6, "dog": 6}, 8),)),
    Case(
        "roboflow, one table",
        "roboflow/ds/valid/_classes.csv",
        "roboflow/ds/valid",
        right=(Right({"cat": 4, "dog": 2}, 4),),
    ),
    *tables("hf_imagefolder", "train", "dict.json records.json", right=(base(),)),
    *tables("hf_imagefolder", "train", "ints.jsonl onehot.jsonl", stops="--label_names"),
    *tables("hf_imagefolder", "train", "train/metadata.jsonl", right=(base(),)),
    Case("hf_imagefolder, its split", None, "hf_imagefolder/train", right=(base(),)),
    Case(
        "hf_imagefolder, all files",
        None,
        "hf_imagefolder",
        right=(base(),),
        stops=r"records\.json|metadata\.jsonl",
    ),
    *tables("captions", "im", "captions_train.json", stops="captions"),
    *tables(
        "captions",
        "im",
        "panoptic_train.json",
        right=(Right({"person": 4, "sky": 2}, 4),),
        stops="panoptic",
    ),
    *tables("captions", "im", "lvis_v1_train.json", right=(Right({"aerosol_can": 4}, 4),)),
    *tables("captions", "im", "stringids.json", right=(Right({"cup": 4}, 4),)),
    Case("captions, all files", None, "captions", stops=r"captions_train\.json"),
    *tables(
        "onehot_extra",
        "im",
        "id01.csv index.csv unnamed.csv width.csv fold.csv xmark.csv yn.csv counts.csv "
        "plusminus.csv",
        right=(base(),),
    ),
    *tables("onehot_extra", "im", "isvalid.csv", right=(base(splits={"train": 6, "val": 2}),)),
    *tables("onehot_extra", "im", "soft.csv", stops="0.9|0.6|0.2|threshold|between"),
    *tables(
        "onehot_extra", "im", "chexpert.csv", right=(Right(CHEXPERT, 8),), stops="-1|blank|empty"
    ),
    *tables("sep", "im", "excel.csv labels.csv.gz", right=(base(),)),
    *tables(
        "sep", "im", "mixed.csv hash.csv slash.csv plus.csv", right=(base(),), stops=SEPARATORS
    ),
    *tables("sep", "im", "long.csv multi.csv", right=(Right(LONG, 8),)),
    *tables("sep2", "../sep/im", "newline.csv", right=(base(SIX),), find=False),
    *tables(
        "sep2",
        "../sep/im",
        "comma_space_one.csv hash_sep.csv",
        right=(base(SIX),),
        stops=SEPARATORS,
        find=False,
    ),
    *tables(
        "sep2",
        "../sep/im",
        "hier.csv",
        right=(Right({"animal>cat": 1, "animal>dog": 1, "animal": 1}, 3),),
        stops=SEPARATORS,
        find=False,
    ),
    *tables(
        "sep2",
        "../sep/im",
        "partition.csv",
        right=(base("0 cat dog, 1 dog, 2 cat", splits={"train": 1, "val": 1, "test": 1}),),
        stops="partition",
        find=False,
    ),
    *tables("sep2", "../sep/im", "split_auto.csv", stops="UNASSIGNED", find=False),
    *tables("wide", "im", "a.csv b.csv", right=(base(),)),
    *tables("wide", "im", "c.csv", stops="category.*--label_columns"),
    *tables("wide", "im", "d.csv", right=(base(),), stops="cells"),
    Case("kaggle_root/own", None, "kaggle_root/own", right=(base(),)),
    Case("kaggle_root/own, images", None, "kaggle_root/own/images", right=(base(),)),
    Case("kaggle_root/planet", None, "kaggle_root/planet", right=(base(),)),
    Case("kaggle_root/planet, train", None, "kaggle_root/planet/train-jpg", right=(base(),)),
    Case("kaggle_root, both", None, "kaggle_root", stops=r"annotations\.csv|train\.csv"),
    *(
        Case(
            name,
            given,
            "tree/a",
            right=(
                Right({"animal": 8, "vehicle": 4}, 12),
                Right({"animal": 8, "cat": 4, "vehicle": 4}, 12),
            ),
            stops="cat",
        )
        for name, given in (("tree/a", None), ("tree/a, given", "tree/a"))
    ),
    *(
        Case(f"tree/{part}{how}", given, f"tree/{part}", right=(SPLIT_88,))
        for part in "bc"
        for how, given in (("", None), (", given", f"tree/{part}"))
    ),
    Case("suffixes", None, "suffixes/photos", right=(SUFFIXES,)),
    *tables(
        "urls", "im", "abs.csv fileurl.csv http.csv kag.csv lsl.csv win.csv", right=(base(PAIR),)
    ),
    *tables("urls", "im", "pct.csv", right=(base("my_cat cat, b#1 dog"),)),
    *(
        Case(
            name,
            given,
            f"vocdevkit{deeper}",
            right=(base("2007_1 cat, 2012_1 cat"),),
            stops="VOC2007",
        )
        for name, given, deeper in (
            ("vocdevkit", None, "/VOCdevkit"),
            ("vocdevkit, given", "vocdevkit/VOCdevkit", "/VOCdevkit"),
            ("vocdevkit, above", None, ""),
        )
    ),
    Case("vocdevkit, 2007", None, "vocdevkit/VOCdevkit/VOC2007", right=(base("2007_1 cat"),)),
    Case("vocflat", None, "vocflat/train", right=(base(),)),
    Case("vocflat, given", "vocflat/train", "vocflat/train", right=(base(),)),
    Case("vocflat, xmls", "vocflat/xmls", "vocflat/train", right=(base(),)),
    Case("vocflat, both", None, "vocflat", right=(base(),), stops="xmls|train"),
    *tables("png_text", "im", "l.csv", right=(base("a cat, b dog, c dog, m cat"),)),
]

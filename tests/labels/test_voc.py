"""PASCAL VOC in every layout: years, lists of tools, XML beside the pictures."""

import pytest

from images.find import find_images
from labels.options import ReadOptions
from labels.read import read_labels
from labels.voc import OFFICIAL_LABELS
from util.errors import UsageError

SETS = {"p0": ["cat", "dog"], "p1": ["dog"], "p2": [], "my photo 3": ["traffic light"]}


def write_xml(folder, sets, suffix=".jpg", pictures=None):
    """XML for each image; with pictures in a folder, if that is given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in sets.items():
        objects = "".join(f"<object><name>{label}</name></object>" for label in labels)
        (folder / f"{name}.xml").write_text(
            f"<annotation><filename>{name}{suffix}</filename>{objects}</annotation>"
        )
    for name in sets if pictures else ():
        pictures.mkdir(parents=True, exist_ok=True)
        (pictures / f"{name}{suffix}").write_bytes(name.encode())
    return folder


def write_lists(root, quote=True, **lists):
    """ImageSets/Main/<name>.txt with these lines."""
    main = root / "ImageSets/Main"
    main.mkdir(parents=True, exist_ok=True)
    for name, images in lists.items():
        values = images.items() if isinstance(images, dict) else ((i, "") for i in images)
        lines = (f'"{i}" {v}' if quote and " " in i else f"{i} {v}" for i, v in values)
        (main / f"{name}.txt").write_text("".join(f"{line.strip()}\n" for line in lines))


def write_year(root, sets=SETS, **lists):
    write_xml(root / "Annotations", sets, pictures=root / "JPEGImages")
    write_lists(root, **lists)
    return root


def sets_of(path, image_path=None) -> dict[str, set[str]]:
    images = read_labels(path, image_path, ReadOptions())
    find_images(image_path or path, images)
    return {n: set(s) for n, s in zip(images.file_names, images.label_sets, strict=True)}


def refusal(path) -> str:
    with pytest.raises(UsageError) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


BASE = {f"{name}.jpg": set(labels) for name, labels in SETS.items()}


# --- years ------------------------------------------------------------------------------------


def test_two_years_are_read_together(tmp_path, capsys):
    """trainval 07+12, test 07; the test images of 2012 have no public labels."""
    kit = tmp_path / "voc/VOCdevkit"
    write_year(kit / "VOC2007", {"1": ["cat"], "2": [], "3": ["dog"]}, train="1", val="2", test="3")
    write_year(kit / "VOC2012", {"1": ["cow"], "5": ["cat"]}, train="1", val="5", test="7")
    for path in (kit, kit.parent):
        images = read_labels(path)
        assert images.splits == ["train", "val", "test", "train", "val"]
        assert images.label_sets == [("cat",), (), ("dog",), ("cow",), ("cat",)]
        files = find_images(path, images)
        assert [str(f.relative_to(kit)) for f in files[:4:3]] == [
            "VOC2007/JPEGImages/1.jpg",
            "VOC2012/JPEGImages/1.jpg",
        ]
    said = capsys.readouterr().err
    assert "VOC2007, VOC2012 are read together" in said
    assert "VOC2012: its test images have no labels and are left out" in said
    assert read_labels(kit / "VOC2012").splits == ["train", "val"]
    for inside in ("Annotations", "JPEGImages"):
        assert read_labels(kit / "VOC2012" / inside).splits == ["train", "val"]
    (kit / "VOC2012/Annotations/5.xml").unlink()
    write_lists(kit / "VOC2012", val=["1", "5"])
    assert "in two splits, train and val" in refusal(kit)
    write_lists(kit / "VOC2012", val=["5", "7"], train=["1", "7"])
    assert "in two splits" in refusal(kit)


def test_an_image_without_xml_stops(tmp_path):
    root = write_year(tmp_path / "VOC2012", train=["p0", "p1", "lost"], val=["p2", "my photo 3"])
    assert "Annotations/lost.xml is missing" in refusal(root)
    write_lists(root, train=["lost"], val=["gone"])
    assert "has no labels of the images in ImageSets/Main" in refusal(root)


def test_trainval_beside_test(tmp_path, capsys):
    """Training images are not left out because train.txt is missing."""
    root = write_year(tmp_path / "VOC2007", trainval=["p0", "p1"], test=["p2", "my photo 3"])
    assert read_labels(root).splits == ["train", "train", "test", "test"]
    write_lists(root, trainval=["p0", "p1"], train=["p0"], test=["p2"])
    assert read_labels(root).splits == ["train", "val", "test"]
    assert "1 XML files are in no list of ImageSets/Main: left out" in capsys.readouterr().err
    (root / "ImageSets/Main/trainval.txt").unlink()
    write_lists(root, extra=["p0", "my photo 3"])
    assert "extra.txt with images that are in no split" in refusal(root)
    images = read_labels(root / "ImageSets/Main/extra.txt")
    assert (images.file_names, images.splits) == (["p0.jpg", "my photo 3.jpg"], None)


# --- lists of tools ---------------------------------------------------------------------------

TAGS = {label: {n: 1 if label in s else -1 for n, s in SETS.items()} for label in ("cat", "dog")}
TAGS["traffic light"] = {n: 1 if "traffic light" in s else -1 for n, s in SETS.items()}


@pytest.mark.parametrize("subset", ["default", "train", "my_part"])
@pytest.mark.parametrize("quote", [True, False])
@pytest.mark.parametrize("boxes", [True, False])
def test_cvat_tags_and_boxes(tmp_path, subset, quote, boxes):
    """Tags are in the lists alone, boxes in the XML; names have spaces, quoted or not."""
    tags = {} if boxes else {f"{label}_{subset}": of for label, of in TAGS.items()}
    sets = SETS if boxes else {name: [] for name in SETS}
    root = write_year(tmp_path / "export", sets, **{subset: list(SETS)}, quote=quote, **tags)
    assert sets_of(root) == BASE
    assert read_labels(root).splits == (["train"] * 4 if subset == "train" else None)
    assert sets_of(root / f"ImageSets/Main/{subset}.txt", root / "JPEGImages") == BASE


def test_tags_and_boxes_add_up(tmp_path):
    """A list of one label does not hide the labels in the XML."""
    only_cat = {n: 1 if "cat" in s else -1 for n, s in SETS.items()}
    without = {n: [x for x in s if x != "cat"] for n, s in SETS.items()}
    root = write_year(tmp_path / "x", without, train=list(SETS), cat_train=only_cat)
    assert sets_of(root) == BASE


def test_the_twenty_official_lists_need_no_xml(tmp_path):
    lists = {f"{label}_train": {"1": int(label == "cat")} for label in OFFICIAL_LABELS.split()}
    root = write_year(tmp_path / "VOC2007", {"2": []}, train=["1"], **lists)
    images = read_labels(root)
    assert set(images.label_sets[0]) == set(OFFICIAL_LABELS.split())
    assert set(images.difficult[0]) == set(OFFICIAL_LABELS.split()) - {"cat"}, "0 is difficult"


def test_several_lists_without_a_split(tmp_path, capsys):
    root = write_year(tmp_path / "x", monday=["p0", "p1"], tuesday=["p2", "my photo 3"])
    assert sets_of(root) == BASE
    assert "all lists are read: monday.txt, tuesday.txt" in capsys.readouterr().err


def test_names_with_suffixes_and_folders(tmp_path):
    root = write_year(tmp_path / "x", train=["p0.jpg", "p1.jpg", "p2.jpg", "my photo 3.jpg"])
    assert sets_of(root) == BASE
    deep = {"a/1": ["cat"], "b/1": ["dog"]}
    for part in "ab":
        (tmp_path / "y/Annotations" / part).mkdir(parents=True)
        (tmp_path / "y/JPEGImages" / part).mkdir(parents=True)
    root = write_year(tmp_path / "y", deep, default=list(deep))
    assert sets_of(root) == {"a/1.jpg": {"cat"}, "b/1.jpg": {"dog"}}


def test_lists_that_are_refused(tmp_path):
    root = write_year(tmp_path / "x", train=list(SETS), cat_train=dict.fromkeys(SETS, 2))
    assert "cat_train.txt, line 1, has 'p0 2'" in refusal(root)
    write_lists(root, cat_train={"p0": 1, "p1": -1})
    assert "cat_train.txt has 2 of the 4 images of train.txt" in refusal(root)
    assert "is the list of one label" in refusal(root / "ImageSets/Main/cat_train.txt")
    write_lists(root, train=["p0", "/etc/x"])
    assert "which is not inside the image folder" in refusal(root)
    write_lists(root, train=[])
    assert "train.txt lists no images" in refusal(root)


# --- XML in other places ----------------------------------------------------------------------


def test_xml_beside_the_pictures(tmp_path):
    flat = write_xml(tmp_path / "mine", SETS, pictures=tmp_path / "mine")
    assert sets_of(flat) == BASE
    (flat / "._p0.xml").write_bytes(b"\0")
    (flat / "__MACOSX").mkdir()
    assert sets_of(flat) == BASE
    xmls = write_xml(tmp_path / "xmls", SETS, suffix=".png")
    assert sets_of(xmls, flat) == BASE, "the XML says .png, the pictures are .jpg"


@pytest.mark.parametrize(
    ("xml", "pictures"),
    [("annotations", "images"), ("annotations/xmls", "images"), ("Annotations", "JPEGImages")],
)
def test_folders_of_other_names(tmp_path, xml, pictures):
    write_xml(tmp_path / "set" / xml, SETS, ".png", pictures=tmp_path / "set" / pictures)
    assert sets_of(tmp_path / "set") == {n.replace("jpg", "png"): s for n, s in BASE.items()}


def test_a_folder_for_each_split(tmp_path):
    """As Roboflow exports it; two pictures with one name stay two."""
    for part in ("train", "valid", "test"):
        write_xml(tmp_path / "set" / part, {"1": [part]}, pictures=tmp_path / "set" / part)
    images = read_labels(tmp_path / "set")
    assert images.splits == ["test", "train", "val"]
    assert images.label_sets == [("test",), ("train",), ("valid",)]
    assert images.file_names[0] == "test/1.jpg"
    assert read_labels(tmp_path / "set/train").splits is None


def test_two_folders_of_xml(tmp_path, capsys):
    write_xml(tmp_path / "set/train", SETS, pictures=tmp_path / "set/train")
    write_xml(tmp_path / "set/xmls", SETS)
    assert sets_of(tmp_path / "set") == BASE
    assert "xmls/ has the labels of train/ again: not used" in capsys.readouterr().err
    write_xml(tmp_path / "set/xmls", {**SETS, "p0": ["cow"]})
    assert "has XML files in xmls, train: name one of them" in refusal(tmp_path / "set")
    assert sets_of(tmp_path / "set/xmls", tmp_path / "set/train")["p0.jpg"] == {"cow"}


def test_folders_that_do_not_belong_together(tmp_path, capsys):
    for name in ("boxes", "tags", "VOC_old"):
        write_year(tmp_path / "set" / name)
    assert "has XML files in VOC_old, boxes, tags: name one of them" in refusal(tmp_path / "set")
    alone = write_year(tmp_path / "one/export").parent
    (alone / "export/JPEGImages/more.jpg").write_bytes(b"")
    assert sets_of(alone) == BASE
    assert "1 picture has no XML in Annotations/: left out" in capsys.readouterr().err
    for name in ("annotations", "xmls"):
        write_xml(tmp_path / "two" / name, SETS)
    assert "has XML files in annotations, xmls" in refusal(tmp_path / "two")


def test_two_pictures_of_one_name(tmp_path):
    flat = write_xml(tmp_path / "mine", SETS, pictures=tmp_path / "mine")
    (flat / "p0.png").write_bytes(b"other")
    with pytest.raises(UsageError, match="'p0' could be"):
        sets_of(flat)


def test_objects_that_are_deleted_or_difficult(tmp_path):
    """LabelMe marks deleted objects; other tools write words instead of 0 and 1."""
    flat = write_xml(tmp_path / "mine", {"a": []}, pictures=tmp_path / "mine")
    objects = "".join(
        f"<object><name>{name}</name><{field}>{value}</{field}></object>"
        for name, field, value in (
            ("cat", "deleted", 1),
            ("dog", "deleted", 0),
            ("cow", "difficult", "true"),
            ("hat", "difficult", "Unspecified"),
        )
    )
    (flat / "a.xml").write_text(f"<annotation>{objects}</annotation>")
    images = read_labels(flat)
    assert images.label_sets == [("dog", "cow", "hat")]
    assert images.difficult == [("cow",)]


def test_xml_that_is_refused(tmp_path):
    flat = write_xml(tmp_path / "mine", SETS, pictures=tmp_path / "mine")
    (flat / "p1.xml").write_text("<annotations/>")
    assert "p1.xml begins with <annotations>: a PASCAL VOC file" in refusal(flat)
    (flat / "p1.xml").write_text("<annotation><object><name> </name></object></annotation>")
    assert "p1.xml, object 1, has no name" in refusal(flat)
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.xml").write_text("<svg/>")
    assert "is a folder without labels" in refusal(other)

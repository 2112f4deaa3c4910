"""Labels that are partly known, through the scripts and the files that they write."""

import json
from pathlib import Path

import make_shards
import pytest
from conftest import QUICK, call, load, one_error, refusal, run

import build_vocab
import data_loader
import evaluate
import train
from annotation.photos import read_annotations
from annotation.store import Answer, Store
from labels.annotated import AnnotatedImages
from labels.options import DEFAULTS, ReadOptions, label_flags
from labels.read import read_labels
from report.label_issues import _table

NAMES = [f"img_{i:02d}.jpg" for i in range(12)]
CAT = [*"1110001?????"]  # on 4 of the 7 images where it is known
DOG = [*"10111011000?"]  # on 6 of 11; nothing is known of the last image, the sixth has no label


def write(mark: str = "?") -> None:
    rows = [",".join(row).replace("?", mark) for row in zip(NAMES, CAT, DOG, strict=True)]
    Path("labels.csv").write_text("\n".join(["file_name,cat,dog", *rows, ""]))


DATA = ("--image_path", "data/images", "--annotations", "labels.csv")


def test_data_loader_counts_what_is_known(workdir, capsys):
    write()
    call(data_loader, *DATA, "--num_workers", 0, "--image_size", 24)
    out, err = capsys.readouterr()
    assert "10 images, 2 labels, 1.00 labels per image; 16 of 20 pairs" in out
    assert "image and label are known, 4 unknown" in out
    assert "labels: cat 4 of 6 known, dog 6 of 10 known" in out
    assert "6 cells are read as not known, most of them in 'cat'" in err
    assert "3 that may have some, 1 without, 1 where no label is known (not used)" in err
    assert "have no label" not in out + err, "those that are used have labels or may have some"
    assert "that labels.csv does not list" not in err
    assert len((out + err).splitlines()) <= 10


def test_build_vocab_prints_the_share_of_known_images(workdir, capsys):
    write()
    call(build_vocab, "--annotations", "labels.csv", "--vocab_path", "v.json")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    assert [row[1:] for row in rows] == [["cat", "4", "66.7%"], ["dog", "6", "60.0%"]]
    content = json.loads(Path("v.json").read_text())
    assert (content["counts"], content["known"], content["num_images"]) == ([4, 6], [6, 10], 10)


def test_blank_cells_stop_train_and_the_flag_decides(tiny):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny.folder)
        write("")
    flags = ("train.py", *DATA, *QUICK, "--keep_unlabelled", "--output_dir", "out")
    error = one_error(run(*flags, cwd=tiny.folder))
    assert "6 blank cells beside 0 and 1" in error
    assert "--blank unknown or --blank absent" in error
    result = run(*flags, "--blank", "unknown", cwd=tiny.folder)
    assert result.returncode == 0, result.stderr
    assert "1 where no label is known (not used)" in result.stderr
    assert "% of these images' labels are unknown and have no part in the loss" in result.stderr
    assert "nan" not in result.stderr + result.stdout
    written = read_labels(tiny.folder / "out/images.csv")
    known = {n: (a, b) for n, a, b in zip(NAMES, CAT, DOG, strict=True) if {a, b} != {"?"}}
    assert {*written.file_names} == {*known}, "nothing is known of the last image"
    found = zip(written.file_names, written.label_sets, written.unknown, strict=True)
    for name, labels, unknown in found:
        states = dict(zip(("cat", "dog"), known[name], strict=True))
        assert {*labels} == {x for x, state in states.items() if state == "1"}
        assert {*unknown} == {x for x, state in states.items() if state == "?"}
    checkpoint = load(tiny.folder / "out/best.pt")
    assert checkpoint["vocabulary"]["known"] == [6, 10]
    assert checkpoint["flags"]["blank"] == "unknown"


def test_what_training_says_of_checked_labels_is_for_its_own_images(capsys):
    trained = {"image_path": "a", "annotations": "a.csv", "checked": "c.csv", "blank": "absent"}
    asked = {"image_path": None, "annotations": None, "checked": None, "separator": "|"}
    own = label_flags(trained, asked)
    assert (own["checked"], own["separator"], own["blank"]) == ("c.csv", "|", "absent")
    assert label_flags(trained, asked | {"annotations": Path("a.csv")})["checked"] == "c.csv"
    assert capsys.readouterr().err == ""
    assert label_flags(trained, asked | {"annotations": Path("b.csv")})["checked"] is None
    assert "c.csv (--checked of training) is not used for other images" in capsys.readouterr().err
    assert label_flags(trained, asked | {"annotations": "b.csv", "checked": "d"})["checked"] == "d"


def states(images: AnnotatedImages) -> dict:
    unknown = images.unknown or [()] * len(images)
    rows = zip(images.file_names, images.label_sets, unknown, strict=True)
    return {name: ({*labels}, {*others}) for name, labels, others in rows}


def test_shards_keep_unknown_labels(workdir):
    write()
    call(make_shards, *DATA, "--output_dir", "shards", "--shard_size", 5)
    assert states(read_labels(Path("shards"))) == states(read_labels(Path("labels.csv")))


def test_annotate_keeps_unknown_labels_of_photos_that_nobody_confirmed(workdir):
    write()
    expected = states(read_labels(Path("labels.csv")))
    answers = read_annotations(Path("labels.csv"), Path("data/images"), DEFAULTS, NAMES).answers
    output = Path("labels.annotated.csv")
    store = Store(output, answers)
    store.answer("img_07.jpg", ["dog", "hat"], store.version("img_07.jpg"))
    store.close()
    confirmed = {"img_07.jpg": ({"dog", "hat"}, set())}
    hidden = {name: others | {"hat"} for name, (_, others) in expected.items()}

    def check(images: AnnotatedImages) -> None:
        """A new label is unknown where some label is, and nothing else has changed."""
        for name, (labels, others) in states(images).items():
            right = confirmed.get(name) or (expected[name][0], hidden[name])
            assert (labels, others - {"hat"}) == (right[0], right[1] - {"hat"})

    check(read_labels(output))
    store = Store(output, answers)  # continues
    assert store.get("img_07.jpg") == Answer(("dog", "hat"), True)
    store.answer("img_08.jpg", [], store.version("img_08.jpg"))
    store.undo("img_08.jpg", store.version("img_08.jpg"))
    store.close()
    check(read_labels(output))


def test_the_corrected_table_keeps_unknown_labels(tmp_path):
    """The page writes cells after the labels as they are; a label that is removed is absent."""
    listed = AnnotatedImages(
        "t.csv", ["a.jpg", "b.jpg"], [("cat",), ()], ["cat", "dog"], unknown=[(), ("dog",)]
    )
    issue = {"row": 0, "label": "cat", "annotation": "surplus"}
    table = _table([issue], listed)
    assert table["header"] == ["file_name", "labels", "checked_labels"]
    lines = [table["header"], *([name, "", *cells] for name, _, *cells in table["rows"])]
    (tmp_path / "t.csv").write_text("\n".join(map(",".join, lines)))
    images = read_labels(tmp_path / "t.csv")
    assert (images.label_sets, images.unknown) == ([(), ()], [(), ("dog",)])


def test_minus_one_is_a_value_of_a_flag(workdir, capsys):
    write("-1")
    flags = ("--annotations", "labels.csv", "--vocab_path", "v.json")
    assert "--unknown -1" in refusal(build_vocab, *flags)
    call(build_vocab, *flags, "--unknown", "-1", "9")
    assert json.loads(Path("v.json").read_text())["known"] == [6, 10]
    capsys.readouterr()


def test_flags_that_are_wrong(workdir, capsys):
    write()
    assert "no column 'seen'" in refusal(train, *DATA, *QUICK, "--checked_column", "seen")
    with pytest.raises(SystemExit):
        call(build_vocab, "--annotations", "labels.csv", "--checked", "lost.csv")
    assert "lost.csv is no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(evaluate, *DATA, "--checkpoint", "x", "--blank", "perhaps")
    capsys.readouterr()
    found = read_labels(Path("labels.csv"), None, ReadOptions(blank="unknown"))
    assert found.unknown[-1] == ("cat", "dog")


def test_labels_that_are_never_absent_are_named(workdir, capsys):
    rows = [f"{name},x,{'x' if i % 2 else ''}" for i, name in enumerate(NAMES)]
    Path("labels.csv").write_text("\n".join(["file_name,cat,dog", *rows, ""]))
    call(data_loader, *DATA, "--num_workers", 0, "--image_size", 24, "--blank", "unknown")
    out, err = capsys.readouterr()
    assert "18 of 24 pairs of image and label are known, 6 unknown" in out
    assert "2 labels are never known to be absent, so no model can learn when: cat, dog" in err
    assert "--decoder none" not in err
    error = refusal(train, *DATA, *QUICK, "--blank", "unknown")
    assert error.startswith("labels.csv says of no label that it is absent from a training image")
    assert "--blank absent" in error
    call(train, *DATA, *QUICK, "--blank", "absent", "--num_epochs", 1)
    # one pair that is known to be absent is enough
    Path("labels.csv").write_text("\n".join(["file_name,cat,dog", *rows[:-1], f"{NAMES[-1]},x,0"]))
    call(train, *DATA, *QUICK, "--blank", "unknown", "--num_epochs", 1, "--output_dir", "one")


def test_labels_that_are_mostly_unknown_are_said(workdir, capsys):
    """Of six labels each image has one that is known, on the first images absent."""
    cells = [[str(i // 6) if i % 6 == label else "" for label in range(6)] for i in range(12)]
    rows = [",".join([name, *row]) for name, row in zip(NAMES, cells, strict=True)]
    Path("labels.csv").write_text("\n".join(["file_name,a,b,c,d,e,f", *rows, ""]))
    call(data_loader, *DATA, "--num_workers", 0, "--image_size", 24, "--blank", "unknown")
    err = capsys.readouterr().err
    assert "83% of the pairs of image and label are unknown. The rest says little" in err
    assert "compare with --decoder none" in err

"""One small set in every format, layouts of full size, and the papers' protocols."""

import json
import resource
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, call, load, run
from formats import NAMES, PAIRS, WRITERS, as_folders, as_nuswide, as_voc, write_nuswide

import build_vocab
import data_loader
import evaluate
import train
from images.find import find_images
from labels.read import read_labels
from labels.search import find_labels
from util.errors import UsageError


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_samples_vocabulary_and_metrics(
    write, workdir, trained, tmp_path_factory, capsys
):
    """The same as COCO json: every pixel of the training data, and every metric."""
    folder = workdir / "other"
    folder.mkdir()
    path = write(folder)
    images = path if write is as_folders else workdir / "data/images"
    if write is as_nuswide:
        (workdir / "flickr").mkdir()
        images = shutil.copytree(workdir / "data/images", workdir / "flickr/x").parent
    expected = read_labels(workdir / "data/annotations/instances.json")
    read = read_labels(path, images)
    printed = capsys.readouterr().err
    assert f"{path}: {read.kind}, 12 images" in printed
    assert ", 5 labels" in printed
    assert [set(s) for s in read.label_sets] == [set(s) for s in expected.label_sets]
    assert read.categories == expected.categories
    files = find_images(images, read)
    assert [f.read_bytes() for f in files] == [
        f.read_bytes() for f in find_images(workdir / "data/images", expected)
    ]
    for source, name in ((path, "a"), (workdir / "data/annotations/instances.json", "b")):
        call(build_vocab, "--annotations", source, "--vocab_path", f"{name}.json")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()

    samples, metrics = [], []
    for where in (("data/images", "data/annotations/instances.json"), (images, path)):
        flags = ["--image_path", str(where[0]), "--annotations", str(where[1]), *QUICK]
        args = train.get_args_parser().parse_args([*flags, "--vocab_path", "a.json"])
        loaded = train.load_data(args, train.choose_images(args), torch.device("cpu"))
        batches = [*loaded.train_loader, *loaded.val_loader]
        samples.append([tensor.numpy().tobytes() for batch in batches for tensor in batch])
        out = tmp_path_factory.mktemp("metrics")
        best = ("--checkpoint", trained.output / "best.pt", "--output_dir", out)
        call(evaluate, *best, *flags[:4], "--num_workers", 0, "--num_samples", 8, "--split", "all")
        result = json.loads((out / "metrics.json").read_text())
        ours = ("command", "image_path", "annotations", "leak", "images_per_second")
        metrics.append({k: v for k, v in result.items() if k not in ours})
    assert samples[0] == samples[1]
    assert metrics[0] == metrics[1]


# --- splits -----------------------------------------------------------------------------------


def test_a_split_column_is_used_without_a_flag(workdir, capsys):
    parts = ["train"] * 8 + ["Validation"] * 2 + ["test"] * 2
    rows = [f"{n},{'|'.join(s)},{p}" for (n, s), p in zip(PAIRS, parts, strict=True)]
    Path("data/images/labels.csv").write_text("\n".join(["file_name,labels,split", *rows]))
    call(train, "--image_path", "data/images", *QUICK, "--output_dir", "out")
    printed = capsys.readouterr().err
    assert "12 images: 8 train, 2 val, 2 test, 5 labels" in printed
    assert "training on 7 images" in printed, "one of the eight has no label"
    checkpoint = load(Path("out/best.pt"))
    assert checkpoint["selected_on"] == "the split val of data/images/labels.csv"
    assert checkpoint["vocabulary"]["num_images"] == 7
    call(evaluate, "--checkpoint", "out/best.pt", "--num_workers", 0)
    printed = capsys.readouterr().err
    assert "evaluating the split test of data/images/labels.csv: 2 images" in printed
    assert "note: this checkpoint" not in printed
    names = np.load("out/predictions.npz")["file_names"].tolist()
    assert names == NAMES[10:]
    # no validation images: part of the training images is held out
    Path("data/images/labels.csv").write_text(
        "\n".join(["file_name,labels,split", *(r.replace("Validation", "train") for r in rows)])
    )
    args = ["--image_path", "data/images", *QUICK, "--output_dir", "two", "--limit", "9"]
    call(train, *args)
    assert load(Path("two/best.pt"))["selected_on"] == "a hold-out of 1 training image"


def test_a_folder_per_label_needs_no_other_file(workdir):
    """With the splits train and val; two pictures with one name stay two."""
    for part, label, number in (("train", "cat", 1), ("train", "dog", 2), ("val", "cat", 3)):
        for n in range(3):
            target = Path(f"mine/{part}/{label}/{n}.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"data/images/img_{number + 3 * n:02d}.jpg", target)
    assert find_labels(Path("mine"), "train") == Path("mine")
    images = read_labels(Path("mine"))
    assert images.file_names[:4] == [
        f"train/{x}" for x in ("cat/0.jpg", "dog/0.jpg", "cat/1.jpg", "dog/1.jpg")
    ]
    assert images.label_sets == [("cat",), ("dog",)] * 3 + [("cat",)] * 3
    assert images.splits == ["train"] * 6 + ["val"] * 3
    result = run("data_loader.py", "--image_path", "mine", "--num_workers", 0, cwd=workdir)
    assert result.returncode == 0, result.stderr
    assert "9 images: 6 train, 3 val, 2 labels" in result.stderr
    (workdir / "mine/train/cat/loop.jpg").symlink_to("loop.jpg")
    (workdir / "mine/train/up").symlink_to("..")
    with pytest.raises(UsageError, match=r"loop\.jpg is a broken link"):
        read_labels(Path("mine"))


# --- the official layouts -----------------------------------------------------------------------


def test_nuswide_of_full_size(tmp_path, capsys):
    """269,648 rows, 81 concepts and 1,000 tags, in files like the official ones."""
    n, folders = 269_648, 704
    rng = np.random.default_rng(0)
    names = np.array([f"f{i % folders}\\{i:04d}_{10**8 + i}.jpg" for i in range(n)], object)
    order = rng.permutation(n)
    training, test = names[np.sort(order[:161_789])], names[np.sort(order[161_789:])]
    truth = {f"concept{c:02d}": rng.random(n) < 0.02 for c in range(81)}
    write_nuswide(tmp_path, list(names), list(training), list(test), truth)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = read_labels(tmp_path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert "269,648 images: 161,789 train, 107,859 test, 81 labels" in capsys.readouterr().err
    assert grown < 500_000, "at most about a kilobyte per image"
    where = {name.replace("\\", "/"): i for i, name in enumerate(names)}
    for i in rng.choice(n, 200, replace=False):
        row = where[read.file_names[i]]
        assert set(read.label_sets[i]) == {c for c, flags in truth.items() if flags[row]}
    assert read.of_split("test").file_names == [t.replace("\\", "/") for t in test]

    tags = tmp_path / "NUS_WID_Tags"
    tags.mkdir()
    (tags / "TagList1k.txt").write_text("".join(f"tag{c}\n" for c in range(1000)))
    few = 20_000  # the full matrix is half a gigabyte
    matrix = rng.random((few, 1000)) < 0.006
    rows = np.full((few, 2001), b"\t", "S1")
    rows[:, :-1:2], rows[:, -1] = np.where(matrix, b"1", b"0"), b"\n"
    (tags / "AllTags1k.txt").write_bytes(rows.tobytes())
    with pytest.raises(UsageError, match=r"AllTags1k\.txt has 20,000 rows of 1,000 tags.*269,648"):
        read_labels(tags)
    for file, some in (("Imagelist", names), ("TrainImagelist", names[:1]), ("TestImagelist", [])):
        (tmp_path / f"ImageList/{file}.txt").write_text("\n".join(some[:few]))
    (tmp_path / "ImageList/TestImagelist.txt").write_text("\n".join(names[1:few]))
    tracemalloc.start()
    read = read_labels(tags)
    assert tracemalloc.get_traced_memory()[1] < 150e6, "the matrix is not read as a whole"
    tracemalloc.stop()
    assert read.label_sets[7] == tuple(f"tag{c}" for c in np.flatnonzero(matrix[7]))
    assert len(read.categories) == 1000

    lines = (f"{10**8 + i}      sky  tag{i % 5} sky \n" for i in range(few))
    (tags / "All_Tags.txt").write_text("".join(lines))
    assert read_labels(tags / "All_Tags.txt").label_sets[6] == ("sky", "tag1")


def test_missing_images_are_counted_and_skipped(workdir, capsys):
    folder = workdir / "nus"
    folder.mkdir()
    as_nuswide(folder)
    shutil.copytree("data/images", "flickr/x")
    for name in NAMES[:3]:
        Path("flickr/x", name).unlink()
    images, paths = data_loader.load_data_set(Path("flickr"), read_labels(folder))
    assert len(images) == len(paths) == 8
    assert "3 of 12 images are not under flickr" in capsys.readouterr().err
    shutil.rmtree("flickr/x")
    with pytest.raises(UsageError, match=r"^12 of the 12 images|^11 of the 11 images"):
        data_loader.load_data_set(Path("flickr"), read_labels(folder))


def test_real_coco_labels_of_full_size(shared, capsys):
    path = shared / "coco2014-labels/instances_train2014.json"
    images = read_labels(path)
    assert len(images.labelled()) == 82_081
    assert sum(map(len, images.label_sets)) == 241_035
    assert "COCO, 82,081 images, 80 labels" in capsys.readouterr().err


def test_voc_difficult_is_neither_true_nor_false(workdir, trained, capsys):
    """AP leaves it out, checked with an independent count; training counts it as present."""
    root = as_voc(workdir)
    for name, label in ((NAMES[1], "dog"), (NAMES[4], "zebra")):
        xml = root / f"Annotations/{name[:-4]}.xml"
        one = f"<name>{label}</name><difficult>"
        xml.write_text(xml.read_text().replace(f"{one}0", f"{one}1"))
    images = read_labels(root)
    assert images.difficult[1] == ("dog",)
    assert set(images.label_sets[1]) == {"person", "dog"}
    best = ("--checkpoint", trained.output / "best.pt", "--num_workers", 0, "--split", "all")
    where = ("--image_path", "data/images", "--annotations", "VOC2007")
    call(evaluate, *best, *where, "--protocol", "voc07", "--output_dir", "out")
    printed = capsys.readouterr()
    assert "2 labels of difficult objects" in printed.err
    assert "11-point mAP" in printed.out
    paper = json.loads(Path("out/metrics.json").read_text())["paper"]
    p = np.load("out/predictions.npz")
    call(
        evaluate,
        *best,
        *where[:2],
        "--annotations",
        "data/annotations/instances.json",
        "--output_dir",
        "all",
    )
    scores, targets = (np.load("all/predictions.npz")[k] for k in ("marginals", "targets"))
    for c, label in enumerate(p["labels"].tolist()):
        rows = [
            i
            for i, n in enumerate(p["file_names"])
            if (n, label) not in {(NAMES[1], "dog"), (NAMES[4], "zebra")}
        ]
        expected = eleven_points(targets[rows, c], scores[rows, c])
        assert paper["AP11"][c] == pytest.approx(100 * expected)


def eleven_points(truth, scores) -> float:
    """VOC 2007's definition of AP, step by step."""
    found = []
    for recall in range(11):
        precisions = []
        for threshold in sorted(set(scores.tolist())):
            said = scores >= threshold
            if 10 * (said & truth).sum() >= recall * truth.sum():
                precisions.append((said & truth).sum() / said.sum())
        found.append(max(precisions, default=0))
    return sum(found) / 11


@pytest.mark.parametrize(
    ("protocol", "rule"), [("coco", "top3"), ("nus81", "top3"), ("nus1k", "top10")]
)
def test_protocols_of_the_paper(workdir, trained, protocol, rule, capsys):
    call(
        evaluate,
        *("--checkpoint", trained.output / "best.pt", "--image_path", "data/images"),
        *("--num_workers", 0, "--num_samples", 8, "--protocol", protocol, "--output_dir", "out"),
        *("--split", "all"),
    )
    assert (
        f"metrics of papers on this data set ({protocol}: 11 images, 5 labels)"
        in capsys.readouterr().out
    )
    result = json.loads(Path("out/metrics.json").read_text())
    paper, p = result["paper"], np.load("out/predictions.npz")
    k = min(int(rule[3:]), 5)
    ranked = np.argsort(-p["marginals"], axis=1, kind="stable")[:, :k]
    predicted = np.zeros_like(p["targets"])
    np.put_along_axis(predicted, ranked, True, axis=1)
    hits = (predicted & p["targets"]).sum()
    assert paper[rule]["OP"] == pytest.approx(100 * hits / predicted.sum())
    assert paper[rule]["OR"] == pytest.approx(100 * hits / p["targets"].sum())
    assert paper["mAP@10"] == result["mAP@10"]
    assert paper[f"{rule}@0.5"]["OP"] >= 0

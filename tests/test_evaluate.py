"""evaluate.py: its tables and files, and the checkpoints it accepts and refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import (
    EVALUATE,
    LABEL_SETS,
    QUICK,
    RANKED,
    TRAIN,
    call,
    coco,
    load,
    refusal,
    run,
    write_json,
    write_picture,
    write_table,
)
from PIL import Image
from processes import run_cold

import evaluate
import sample
import train
from inference import predictor


def test_evaluate_end_to_end(trained):
    """The console, the log and the JSON show the same numbers."""
    result = run_cold("evaluate.py", *EVALUATE, cwd=trained.folder)
    assert result.returncode == 0, result.stderr
    assert "using runs/instances-chain/best.pt" in result.stderr
    assert "trained on these very annotations" in result.stderr
    assert result.stdout == (trained.output / "all/evaluate.log").read_text()
    results = json.loads((trained.output / "all/metrics.json").read_text())
    assert results["num_images"] == 11
    assert f"mAP {results['mAP']:.2f} over {results['mAP_labels']} labels" in result.stdout
    assert f"set NLL {results['set_nll']:.3f}" in result.stdout
    for rule, values in results["predicted_sets"].items():
        row = next(x for x in result.stdout.splitlines() if x.startswith(f"{rule} "))
        assert row.split()[1:10] == [f"{value:.1f}" for value in values.values()]
    for row in results["per_label"]:
        line = next(x for x in result.stdout.splitlines() if x.startswith(row["label"]))
        cells = [f"{row[k]:.1f}" for k in ("AP", "precision", "recall", "f1")]
        assert line.split() == [row["label"], str(row["support"]), *cells]
    assert [row["support"] for row in results["per_label"]] == [7, 4, 4, 2, 2]


def test_evaluate_json_without_nan(trained, workdir, capsys):
    """Zebra and apple are on none of these images: undefined metrics are null, not NaN."""
    val = write_json(coco([("person",), ("dog",), ("cat", "person"), ()]), workdir / "val.json")
    best = trained.output / "best.pt"
    flags = ("--checkpoint", best, "--image_path", "data/images", "--annotations", val)
    call(evaluate, *flags, "--num_workers", 0, "--output_dir", "out", "--json", "--keep_unlabelled")
    captured = capsys.readouterr()
    assert "NaN" not in captured.out
    results = json.loads(captured.out)
    assert captured.out == (workdir / "out/metrics.json").read_text()
    assert (workdir / "out/evaluate.log").exists()
    by_label = {row["label"]: row for row in results["per_label"]}
    assert by_label["zebra"]["AP"] is None
    assert by_label["zebra"]["support"] == 0
    assert by_label["person"]["support"] == 2
    assert results["num_images"] == 4
    assert results["mAP_labels"] == 3
    assert results["protocol"] == "all images"


def test_evaluation_is_repeatable(trained, workdir, capsys):
    """Batch size and workers do not change any metric."""
    found = []
    for flags in (("--batch_size", 4), ("--batch_size", 4, "--num_workers", 2)):
        best = trained.output / "best.pt"
        call(evaluate, *EVALUATE, "--checkpoint", best, "--output_dir", "o", "--json", *flags)
        results = json.loads(capsys.readouterr().out)
        del results["images_per_second"]
        found.append(results)
    assert found[0] == found[1]


def test_reveal_label_issues_and_influence(trained, workdir, capsys):
    best = ("--checkpoint", trained.output / "best.pt", "--output_dir", "o")
    asked = (
        "--reveal",
        1,
        "--label_issues",
        4,
        "--influence",
        "--decide",
        "map",
        "--num_workers",
        0,
    )
    call(evaluate, *EVALUATE, *best, *asked)
    out = capsys.readouterr().out
    assert out == (workdir / "o/evaluate.log").read_text()
    found = json.loads((workdir / "o/metrics.json").read_text())
    rows = found["label_issues"]
    for kind in ("surplus", "missing"):  # between the two a label's frequency counts, too
        of_label = [
            r["probability"] for r in rows if r["annotation"] == kind and r["label"] == "cat"
        ]
        assert of_label == sorted(of_label)
    for row in rows:
        labels = LABEL_SETS[int(Path(row["image"]).stem.removeprefix("img_"))]
        assert row["annotation"] == ("surplus" if row["label"] in labels else "missing")
        assert any(row["image"] in line and row["label"] in line for line in out.splitlines())
    assert set(found["revealed"]["before"]) == set(found["revealed"]["after"])
    assert "before mAP" in out
    with (workdir / "o/label_influence.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["label", *RANKED]
    matrix = np.array([line[1:] for line in lines], float)
    assert np.array_equal(matrix, matrix.T)
    with Image.open(workdir / "o/label_influence.png") as picture:
        picture.verify()
    recall = {row["label"]: row["recall"] for row in found["per_label"]}
    call(evaluate, *EVALUATE, *best, "--num_workers", 0, "--json")
    by_threshold = json.loads(capsys.readouterr().out)
    assert "label_issues" not in by_threshold
    sets = by_threshold["predicted_sets"]
    assert sets["map"]["CR"] == pytest.approx(sum(recall.values()) / len(RANKED))


def test_each_label_has_its_own_threshold(trained, workdir, capsys):
    best = trained.output / "best.pt"
    flags = ("--checkpoint", best, "--output_dir", "o", "--num_workers", 0, "--json")
    call(evaluate, *EVALUATE, *flags, "--decide", "label_f1")
    found = json.loads(capsys.readouterr().out)
    assert found["label_thresholds"] == load(best)["label_thresholds"]
    with np.load("o/predictions.npz") as file:
        targets, marginals = file["targets"], file["marginals"]
    for c, (row, threshold) in enumerate(
        zip(found["per_label"], found["label_thresholds"], strict=True)
    ):
        predicted = marginals[:, c] >= threshold
        hits = (targets[:, c] & predicted).sum()
        assert row["recall"] == pytest.approx(100 * hits / targets[:, c].sum())
        assert row["precision"] == pytest.approx(100 * hits / max(predicted.sum(), 1))


def test_checkpoints_of_other_programs_are_refused(trained, workdir):
    torch.save([1, 2], "list.pt")
    torch.save(torchvision.models.resnet18().state_dict(), "resnet.pt")
    torch.save({"format": "hybridnet-checkpoint-1"}, "empty.pt")
    (workdir / "zip.pt").write_bytes(b"PK\x03\x04" + bytes(200))
    (workdir / "none.pt").write_bytes(b"")
    whole = (trained.output / "best.pt").read_bytes()
    (workdir / "half.pt").write_bytes(whole[: len(whole) // 2])
    checkpoint = load(trained.output / "best.pt")
    del checkpoint["weights"]["classifier.bias"]
    torch.save(checkpoint, "lacking.pt")
    for name in ("list.pt", "resnet.pt", "empty.pt", "zip.pt", "none.pt", "half.pt", "lacking.pt"):
        sentence = refusal(evaluate, *EVALUATE, "--checkpoint", name)
        assert name in sentence
        assert "damaged" in sentence
        assert name in refusal(sample, "data/images", "--checkpoint", name)
    assert "there is no checkpoint" in refusal(evaluate, *EVALUATE, "--checkpoint", "absent.pt")
    assert "data has no best.pt" in refusal(evaluate, *EVALUATE, "--checkpoint", "data")


class Hostile:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (open, ("hacked", "w"))


def test_a_hostile_checkpoint_runs_no_code(workdir):
    torch.save({"format": "hybridnet-checkpoint-1", "weights": Hostile()}, "bad.pt")
    assert "damaged" in refusal(sample, "data/images", "--checkpoint", "bad.pt")
    assert "holds no state dict" in refusal(train, *TRAIN, "--weights", "bad.pt")
    assert not (workdir / "hacked").exists()


def test_last_pt_can_be_evaluated_too(trained, workdir, capsys):
    last = trained.output / "last.pt"
    call(evaluate, *EVALUATE, "--checkpoint", last, "--output_dir", "o", "--json", "--limit", 3)
    assert json.loads(capsys.readouterr().out)["num_images"] == 3


def test_evaluate_refuses(trained, workdir):
    best = ("--checkpoint", trained.output / "best.pt")
    alone = refusal(evaluate, *best, "--annotations", "data/annotations/instances.json")
    assert "with --image_path" in alone
    other = {**{"unicorn": 77}, "cat": 17}
    write_json(coco([("unicorn",)], categories=other), workdir / "other.json")
    assert "'unicorn', which the vocabulary lacks" in refusal(
        evaluate, *best, "--image_path", "data/images", "--annotations", "other.json"
    )
    assert "no trained model found" in refusal(evaluate, *EVALUATE)


def test_labels_are_read_as_they_were_for_training(workdir):
    """The flags that say how to read a table come from the checkpoint, unless they are given."""
    rows = [
        f"img_{i:02d}.jpg,{' / '.join(s) or 'dog'},{'train' if i < 8 else 'test'}"
        for i, s in enumerate(LABEL_SETS)
    ]
    table = Path("data/images/labels.csv")
    table.write_text("\n".join(["file_name,what,split", *rows]))
    read = ("--separator", "/", "--label_columns", "what")
    call(train, "--image_path", "data/images", *QUICK, "--output_dir", "out", *read)
    best = ("--checkpoint", "out/best.pt", "--num_workers", 0)
    call(evaluate, *best, "--image_path", "data/images")
    labels = np.load("out/predictions.npz")["labels"].tolist()
    assert "person" in labels
    assert not any("/" in label for label in labels)
    sentence = refusal(evaluate, *best, "--image_path", "data/images", "--label_columns", "x")
    assert "has no column 'x' (--label_columns)" in sentence


@pytest.fixture(scope="module")
def own_photos(tmp_path_factory):
    """A run on 30 photos with a table that has no split column."""
    folder = tmp_path_factory.mktemp("own")
    sets = [LABEL_SETS[i % len(LABEL_SETS)] for i in range(30)]
    for i, labels in enumerate(sets):
        write_picture(folder / f"photos/{i:02d}.jpg", labels, seed=i)
    rows = [[f"{i:02d}.jpg", "|".join(labels)] for i, labels in enumerate(sets)]
    write_table(folder / "photos", ["file_name", "labels"], rows)
    result = run("train.py", "--image_path", "photos", *OWN, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


OWN = ("--image_size", 48, "--num_epochs", 1, "--batch_size", 8, "--num_workers", 0)
OWN += ("--val_fraction", 0.2, "--arch", "test_resnet")


def test_the_hold_out_of_training_is_evaluated(own_photos, monkeypatch, capsys):
    """No flag is needed; a quick look and other parts do not replace the results."""
    monkeypatch.chdir(own_photos)
    run_folder = Path("runs/photos-chain")
    held = load(run_folder / "best.pt")["held_out"]
    call(evaluate, "--num_workers", 0)
    assert "evaluating the hold-out of photos/labels.csv: 6 images" in capsys.readouterr().err
    names = np.load(run_folder / "predictions.npz")["file_names"].tolist()
    assert sorted(names) == sorted(held)
    whole = {path.name: path.read_bytes() for path in run_folder.iterdir() if path.is_file()}
    call(evaluate, "--num_workers", 0, "--limit", 2)
    call(evaluate, "--num_workers", 0, "--split", "train", "--label_issues", 3)
    assert "--folds 5 finds more" in capsys.readouterr().err
    call(evaluate, "--num_workers", 0, "--image_path", "photos", "--split", "val")
    for name, content in whole.items():
        if name not in ("metrics.json", "predictions.npz", "evaluate.log"):  # a command and a time
            assert (run_folder / name).read_bytes() == content
    assert json.loads((run_folder / "metrics.json").read_text())["split"] == "hold-out"
    assert json.loads((run_folder / "first-2/metrics.json").read_text())["num_images"] == 2
    trained_on = np.load(run_folder / "train/predictions.npz")["file_names"].tolist()
    assert not {*trained_on} & {*held}
    assert len(trained_on) == 22, "30 photos, 2 without labels, 6 held out"


def test_bad_images_are_left_out(own_photos, monkeypatch, capsys):
    monkeypatch.chdir(own_photos)
    held = load("runs/photos-chain/best.pt")["held_out"]
    bad, gone = (Path("photos") / name for name in held[:2])
    kept = bad.read_bytes(), gone.read_bytes()
    bad.write_bytes(kept[0][:100])
    gone.unlink()
    try:
        assert "1 of the" in refusal(evaluate, "--num_workers", 0)
        call(evaluate, "--num_workers", 0, "--skip_bad_images", "--output_dir", "o", "--reveal", 1)
        err = capsys.readouterr().err
        assert "2 images cannot be read and are left out: o/skipped_images.jsonl" in err
        names = np.load("o/predictions.npz")["file_names"].tolist()
        assert sorted(names) == sorted(held[2:])
    finally:
        bad.write_bytes(kept[0])
        gone.write_bytes(kept[1])


def test_folds_judge_every_image_out_of_sample(own_photos, monkeypatch, capsys):
    """Each fold's model was trained without its images; results are those of these models."""
    monkeypatch.chdir(own_photos)
    flags = ("--num_workers", 0, "--folds", 2, "--label_issues", 5, "--keep_unlabelled")
    call(evaluate, *flags, "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["split"], found["folds"], found["num_images"]) == ("all", 2, 30)
    folder = Path("runs/photos-chain/all-folds-2")
    with np.load(folder / "predictions.npz") as file:
        names, marginals = file["file_names"].tolist(), file["marginals"]
    left_out = [(folder / f"fold-{k}.txt").read_text().splitlines() for k in (1, 2)]
    assert sorted(left_out[0] + left_out[1]) == sorted(names)
    for k, own in enumerate(left_out, start=1):
        model = predictor.load(folder / f"fold-{k}/best.pt")
        expected = model.predict(f"photos/{own[0]}", num_samples=128)["labels"]
        row = dict(zip(model.labels, marginals[names.index(own[0])], strict=True))
        assert expected == pytest.approx(row, abs=1e-4)
        assert not {*own} & {*load(folder / f"fold-{k}/best.pt")["held_out"]}
    trained = (folder / "fold-1/best.pt").stat().st_mtime_ns
    call(evaluate, *flags)
    assert (folder / "fold-1/best.pt").stat().st_mtime_ns == trained, "not trained again"
    assert "2 models with the flags of" in capsys.readouterr().out
    refused = refusal(evaluate, "--compare", folder / "metrics.json", folder / "metrics.json")
    assert "is of several models" in refused

"""Tar shards: each image of the folder once per epoch, and shards from strangers do no harm."""

import io
import json
import os
import pickle
import tarfile

import make_shards
import numpy as np
import pytest
import torch
import webdataset
from conftest import LABEL_SETS, QUICK, call, coco, refusal, run, write_json, write_picture
from torch.utils.data import DataLoader

import evaluate
import train
from images.decode import load_image
from images.shards import find_members
from images.transforms import Preprocessing
from labels.coco import read_annotations
from labels.vocabulary import Vocabulary
from util.errors import UsageError

FOLDER = ("--image_path", "data/images", "--annotations", "data/annotations/instances.json")
SHARDS = "data/shards/train"


@pytest.fixture
def folder(workdir):
    """The tiny set and its shards of five, five and two; one image has the suffix .pkl."""
    (workdir / "data/images/img_01.jpg").rename(workdir / "data/images/img_01.pkl")
    names = [f"img_{i:02d}.{'pkl' if i == 1 else 'jpg'}" for i in range(12)]
    write_json(coco(names=names), workdir / "data/annotations/instances.json")
    call(make_shards, *FOLDER, "--output_dir", SHARDS, "--shard_size", 5)
    return workdir / SHARDS


def loaders(*flags: object) -> tuple[DataLoader, DataLoader, Vocabulary]:
    """What train.py trains and validates on."""
    flags = ["--val_fraction", 0, *QUICK, *flags]
    args = train.get_args_parser().parse_args(list(map(str, flags)))
    train.resolve_paths(args)
    loaded = train.load_data(args, train.choose_images(args), torch.device("cpu"))
    return loaded.train_loader, loaded.val_loader, loaded.images.vocabulary


def images_of(loader) -> dict[bytes, list]:
    """Pixels -> targets, for each image."""
    data = loader.dataset
    return {bytes(data[0, i][0].numpy()): data[0, i][1].tolist() for i in range(len(data))}


# --- their content ----------------------------------------------------------------------------


def test_shards_are_what_webdataset_reads(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["shards.json", *(f"train-{i:06d}.tar" for i in range(3))]
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    found = {}
    for sample in samples:
        about = json.loads(sample["json"])
        (suffix,) = {k for k in sample if not k.startswith("__")} - {"json"}
        assert suffix == ("img" if about["file_name"].endswith("pkl") else "jpg")
        assert sample[suffix] == (folder.parents[1] / "images" / about["file_name"]).read_bytes()
        found[about["file_name"]] = tuple(about["labels"])
    images = read_annotations(folder.parents[1] / "annotations/instances.json")
    assert found == dict(zip(images.file_names, images.label_sets, strict=True))
    assert list(found) != images.file_names, "images are shuffled"


def test_the_index_is_an_annotation_file_of_the_same_images(folder):
    a, b = (
        read_annotations(p) for p in (folder.parents[1] / FOLDER[3][5:], folder / "shards.json")
    )
    assert a.categories == b.categories
    assert dict(zip(a.file_names, a.label_sets, strict=True)) == dict(
        zip(b.file_names, b.label_sets, strict=True)
    )


def test_the_same_command_makes_the_same_shards(folder):
    call(make_shards, *FOLDER, "--output_dir", "again/train", "--shard_size", 5)
    for path in folder.iterdir():
        assert path.read_bytes() == (folder.parents[2] / "again/train" / path.name).read_bytes()


def test_training_data_equal_those_of_the_folder(folder):
    """With the evaluation transform, with and without unlabelled images."""
    for flags, count in (((), 11), (("--keep_unlabelled",), 12)):
        _, direct, vocabulary = loaders(*FOLDER, *flags)
        train_loader, sharded, vocabulary_of_shards = loaders("--image_path", SHARDS, *flags)
        assert vocabulary == vocabulary_of_shards
        assert images_of(direct) == images_of(sharded)
        assert len(sharded.dataset) == len(train_loader.dataset) == count
        assert len(pickle.dumps(sharded.dataset)) < 20_000, "workers get no pixels"


def test_workers_read_the_same_batches(folder):
    seen = []
    for workers in (0, 2):
        loader, *_ = loaders("--image_path", SHARDS, "--num_workers", workers)
        loader.batch_sampler.epoch = 3
        seen.append(list(loader))
    for (a, _, i), (b, _, j) in zip(*seen, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(i, j)


def test_hold_out_and_other_validation_images(folder):
    some, held, *_ = loaders("--image_path", SHARDS, "--val_fraction", 0.3)
    assert (len(some.dataset), len(held.dataset)) == (8, 3)
    assert not images_of(held).keys() & {bytes(load(p)) for p in some.dataset.paths}
    _, whole, *_ = loaders(*FOLDER, "--val_image_path", SHARDS)
    _, direct, *_ = loaders("--image_path", SHARDS, "--val_image_path", "data/images")
    assert images_of(whole) == images_of(direct)


def load(path) -> np.ndarray:
    return Preprocessing(32).eval_transform().from_file(path).numpy()


# --- damaged or hostile shards -----------------------------------------------------------------


def members(folder, name: str = "shards.json") -> list:
    return find_members(folder, read_annotations(folder / name))


def test_missing_and_truncated_shards_are_named(folder):
    shard = folder / "train-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-512])
    assert "train-000001.tar has" in (sentence := refusal(train, "--image_path", SHARDS, *QUICK))
    assert f"{len(whole):,}" in sentence
    shard.unlink()
    assert "train-000001.tar is missing" in refusal(train, "--image_path", SHARDS, *QUICK)
    shard.symlink_to(folder / "nowhere")
    assert "train-000001.tar is missing" in refusal(train, "--image_path", SHARDS, *QUICK)


def test_a_shard_that_changes_during_the_run(folder):
    member = members(folder)[-1]
    assert load_image(member).size == (40, 40)
    os.truncate(member.shard, member.offset + 600)
    with pytest.raises(UsageError, match=rf"train-000002\.tar lacks {member.name}; copy"):
        load_image(member)
    os.truncate(member.shard, 0)
    with pytest.raises(UsageError, match=rf"train-000002\.tar lacks {member.name}; copy"):
        load_image(member)
    with pytest.raises(UsageError, match=r"gone\.tar .No such file"):
        load_image(member._replace(shard=folder / "gone.tar"))


def test_a_damaged_image_is_named(folder):
    member = members(folder)[0]
    with open(member.shard, "r+b") as file:
        file.seek(member.offset + 512)
        file.write(b"nothing" * 9)
    expected = f"{SHARDS}/train-000000.tar/{member.name} cannot be read as an image"
    for workers in (0, 1):
        flags = (*QUICK, "--num_workers", workers, "--keep_unlabelled")
        assert expected in refusal(train, "--image_path", SHARDS, *flags)


@pytest.mark.parametrize("change", ["elsewhere", -512, 10**30, 513, 10**9])
def test_members_that_do_not_exist(folder, change):
    index = json.loads((folder / "shards.json").read_text())
    image = index["images"][2]
    if change == "elsewhere":
        image["offset"] = index["images"][1]["offset"]
    else:
        image["offset"] = change
    (folder / "shards.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=r"the shard .*train-000000\.tar"):
        load_image(members(folder)[2])


def test_a_hostile_tar_runs_no_code_and_writes_nothing(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "bang"),)

    secret = tmp_path / "secret.jpg"
    write_picture(secret)
    index = json.loads((folder / "shards.json").read_text())
    kinds = {"../out.jpg": tarfile.REGTYPE, "/tmp/out.jpg": tarfile.REGTYPE}
    kinds |= {"link.jpg": tarfile.SYMTYPE, "hard.jpg": tarfile.LNKTYPE, "a.pkl": tarfile.REGTYPE}
    kinds |= {"fifo.jpg": tarfile.FIFOTYPE, "a.pyd": tarfile.REGTYPE, "a.pth": tarfile.REGTYPE}
    shard, content = folder / "train-000000.tar", pickle.dumps(Bomb())
    with tarfile.open(shard, "w", format=tarfile.USTAR_FORMAT) as tar:
        for image, (name, kind) in zip(index["images"], kinds.items(), strict=False):
            about = tarfile.TarInfo(name)
            about.type, about.linkname = kind, str(secret)
            about.size = len(content) if kind == tarfile.REGTYPE else 0
            image |= {"shard": 0, "offset": tar.offset, "member": name}
            tar.addfile(about, io.BytesIO(content))
    index["shards"][0]["bytes"] = shard.stat().st_size
    before = sorted(tmp_path.rglob("*"))
    (folder / "shards.json").write_text(json.dumps(index))
    for member in members(folder)[: len(kinds)]:
        with pytest.raises(UsageError, match=r"train-000000\.tar"):
            load_image(member)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.pop("shards"),
        lambda index: index["images"][0].pop("shard"),
        lambda index: index["images"][0].update(shard=3),
        lambda index: index["images"][0].update(offset="far"),
        lambda index: index["images"][0].update(offset=float("inf")),
        lambda index: index.update(shards=[7]),
    ],
)
def test_a_damaged_index(folder, damage):
    index = json.loads((folder / "shards.json").read_text())
    damage(index)
    (folder / "shards.json").write_text(json.dumps(index))
    sentence = refusal(train, "--image_path", SHARDS, *QUICK)
    assert f"{SHARDS}/shards.json is not an index of shards" in sentence


def test_an_index_cannot_point_outside_its_folder(folder, tmp_path):
    index = json.loads((folder / "shards.json").read_text())
    for name in ("../../../elsewhere.tar", str(tmp_path / "elsewhere.tar")):
        index["shards"][0]["file_name"] = name
        (folder / "shards.json").write_text(json.dumps(index))
        (tmp_path / "elsewhere.tar").write_bytes(b"")
        with pytest.raises(UsageError, match=rf"{SHARDS}/elsewhere\.tar is missing"):
            members(folder)


# --- the scripts ------------------------------------------------------------------------------


def test_a_user_makes_shards_and_trains(workdir):
    command = ("data/make_shards.py", *FOLDER, "--output_dir", SHARDS, "--shard_size", 5)
    made = run(*command, cwd=workdir)
    assert made.returncode == 0, made.stderr
    expected = "12 images, 11 with labels, 5 labels, 19 annotations, in data/shards/train"
    assert made.stdout.startswith("3 shards, ")
    assert expected in made.stdout
    assert sum(map(len, LABEL_SETS)) == 19
    trained = run("train.py", "--image_path", SHARDS, *QUICK, cwd=workdir)
    assert trained.returncode == 0, trained.stderr
    assert (workdir / "runs/train-chain/best.pt").exists()
    assert [json.loads(line)["epoch"] for line in trained.stdout.splitlines()] == [1, 2]
    again = run(*command, cwd=workdir)
    assert again.returncode == 2
    assert "data/shards/train is not empty" in again.stderr


def test_evaluation_on_shards_gives_the_same_metrics(folder, trained, capsys):
    metrics = []
    for data in (FOLDER, ("--image_path", SHARDS, "--annotations", f"{SHARDS}/shards.json")):
        flags = ("--num_workers", 0, "--json", "--checkpoint", trained.output / "best.pt")
        capsys.readouterr()
        call(evaluate, *data, *flags, "--output_dir", "out", "--split", "all")
        metrics.append(json.loads(capsys.readouterr().out))
    for name in ("num_images", "mAP", "set_nll"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], rel=1e-4)


def test_a_cache_of_shards_is_an_error(folder):
    sentence = refusal(train, "--image_path", SHARDS, "--cache", "c", *QUICK)
    assert sentence == "--cache is for image folders: leave it out if images are in shards"


def test_images_that_are_not_in_the_shards(folder):
    other = write_json(coco(names=[f"new_{i}.jpg" for i in range(12)]), folder.parent / "o.json")
    sentence = refusal(train, "--image_path", SHARDS, "--annotations", other, *QUICK)
    assert "11 of the 11 images of" in sentence
    assert f"are not in the shards of {SHARDS}, for example new_0.jpg" in sentence


def test_wrong_input_of_make_shards(workdir):
    helped = run("data/make_shards.py", "--help", cwd=workdir)
    assert helped.returncode == 0
    assert "--shard_size" in helped.stdout
    assert run("data/make_shards.py", "--shard_size", 0, cwd=workdir).returncode == 2
    flags = ("--output_dir", SHARDS)
    assert "does not exist" in refusal(make_shards, "--image_path", "no", *FOLDER[2:], *flags)
    assert "cannot read" in refusal(make_shards, *FOLDER[:3], "no.json", *flags)
    (workdir / "file").write_text("")
    assert "cannot make the folder" in refusal(make_shards, *FOLDER, "--output_dir", "file/x")
    image = workdir / "data/images/img_03.jpg"
    image.unlink()
    assert "1 of the 12 images" in refusal(make_shards, *FOLDER, *flags)
    assert not (workdir / SHARDS).exists()
    image.mkdir()
    assert "img_03.jpg (Is a directory)" in refusal(make_shards, *FOLDER, *flags)
    assert not (workdir / SHARDS / "shards.json").exists(), "the index is written last"

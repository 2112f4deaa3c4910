"""Batches: all that has arrived is labelled at once, and nothing else changes a result."""

import threading
from dataclasses import replace

import pytest
import torch
from conftest import same

from inference import predictor as predictors
from serving import batcher as batchers
from serving.batcher import Batcher
from util.errors import UsageError


@pytest.fixture(scope="module")
def model(trained):
    return predictors.load(trained.output)


@pytest.fixture
def held(model):
    """A batcher whose network waits for `go`, and the sizes of its batches."""
    sizes, go = [], threading.Event()
    go.set()

    class Held(predictors.Predictor):
        def encode_batch(self, images):
            sizes.append(len(images))
            assert go.wait(60)
            return super().encode_batch(images)

    batcher = Batcher(Held(**vars(model)), 4)
    go.clear()
    sizes.clear()
    yield batcher, go, sizes
    go.set()
    batcher.stop()


def pictures(model, number):
    side = model.transform.side
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def start(batcher, first):
    """Label a picture, and wait until the network works on it."""
    future = batcher.label(first)
    while not future.running():
        pass
    return future


def test_what_arrives_meanwhile_is_the_next_batch(model, held):
    batcher, go, sizes = held
    images = pictures(model, 7)
    facts = [{}, {}, {"known": ["dog"]}, {"absent": ["dog"]}, {"known": ["dog"]}, {}, {}]
    futures = [start(batcher, images[0])]
    futures += [batcher.label(images[i], **facts[i]) for i in range(1, 7)]
    go.set()
    results = [future.result(60) for future in futures]
    assert sizes == [1, 4, 2]
    for image, fact, result in zip(images, facts, results, strict=True):
        alone = model.describe(model.encode_batch(image[None]), num_samples=128, **fact)
        assert result["labels"] == pytest.approx(alone["labels"], abs=1e-4)
        assert result.get("known") == alone.get("known")
        assert same([*result], [*alone])


def test_it_waits_for_accepted_pictures_only(model, held, monkeypatch):
    batcher, go, sizes = held
    go.set()
    images = pictures(model, 6)
    batcher.label(images[0]).result(60)
    monkeypatch.setattr(batchers, "WAIT", 1e9)
    batcher.label(images[0]).result(60)  # or it would hang
    batcher.accepted = lambda: 3
    futures = [batcher.label(image) for image in images[:2]]
    futures.append(batcher.label(images[2]))
    assert all(future.result(60)["labels"] for future in futures)
    batcher.accepted = lambda: 9
    futures = [batcher.label(image) for image in images[:4]]
    assert all(future.result(60)["labels"] for future in futures), "a batch is full"
    assert sizes == [1, 1, 3, 4]
    monkeypatch.setattr(batchers, "WAIT", 0)
    assert batcher.label(images[0]).result(60)["labels"], "it does not wait for ever"


def test_it_waits_for_as_many_as_the_last_batch_had(model, held, monkeypatch):
    """Their clients have got answers and are about to ask again."""
    batcher, go, sizes = held
    images = pictures(model, 4)
    futures = [start(batcher, images[0]), *map(batcher.label, images[1:])]
    go.set()
    assert all(future.result(60)["labels"] for future in futures)
    monkeypatch.setattr(batchers, "WAIT", 1e9)
    futures = [batcher.label(images[0])]
    while batcher._jobs.qsize():
        pass
    futures += map(batcher.label, images[1:3])
    assert all(future.result(60)["labels"] for future in futures)
    monkeypatch.setattr(batchers, "WAIT", 0)
    assert batcher.label(images[0]).result(60)["labels"], "it does not wait for ever"
    assert sizes == [1, 3, 3, 1]


def test_a_batch_is_split_over_threads(model):
    """Its parts are encoded with all threads together, and decoded with one thread each."""
    encoded, decoded, go = [], [], threading.Event()

    class Noted(predictors.Predictor):
        def encode_batch(self, images):
            encoded.append((len(images), torch.get_num_threads()))
            assert go.wait(60)
            return super().encode_batch(images)

        def describe_batch(self, encoding, *args, **options):
            decoded.append(torch.get_num_threads())
            return super().describe_batch(encoding, *args, **options)

    images = pictures(model, 10)
    go.set()
    torch.set_num_threads(4)
    try:
        batcher = Batcher(Noted(**vars(model)), 16)
    finally:
        torch.set_num_threads(1)
    go.clear()
    futures = [start(batcher, images[0]), *map(batcher.label, images[1:])]
    futures.append(batcher.label(images[0][:2]))  # its part fails: each picture is tried alone
    go.set()
    results = [future.result(60) for future in futures[:-1]]
    with pytest.raises(RuntimeError):
        futures[-1].result(60)
    batcher.stop()
    assert encoded[:2] == [(1, 4), (1, 4)], "a blank picture, and the first one"
    assert sorted(encoded[2:]) == [*5 * [(1, 2)], (5, 2)]
    assert {*decoded} == {1}
    for image, result in zip(images, results, strict=True):
        alone = model.describe(model.encode_batch(image[None]), num_samples=128)
        assert result["labels"] == pytest.approx(alone["labels"], abs=1e-4)


def test_a_picture_that_fails_fails_alone(model, held):
    batcher, go, _ = held
    images = pictures(model, 3)
    futures = [start(batcher, images[0]), batcher.label(images[1], ["unknown label"])]
    futures += [batcher.label(images[1][:2]), batcher.label(images[2])]
    cancelled = batcher.label(images[2])
    assert cancelled.cancel()
    go.set()
    assert futures[0].result(60)["labels"]
    with pytest.raises(UsageError, match="does not know the label"):
        futures[1].result(60)
    with pytest.raises(RuntimeError):
        futures[2].result(60)
    assert futures[3].result(60)["labels"]


def test_what_has_arrived_is_finished_before_the_end(model, held):
    batcher, go, _ = held
    futures = [start(batcher, pictures(model, 1)[0])]
    futures += [batcher.label(image) for image in pictures(model, 6)]
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    go.set()
    stopping.join(60)
    assert all(future.done() for future in futures)


def test_a_promise_that_cannot_be_kept_is_an_error_at_the_start(model):
    with pytest.raises(UsageError, match="promise"):
        Batcher(replace(model, promises=None), 4, "precision=0.9")

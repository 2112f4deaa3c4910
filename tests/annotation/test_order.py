"""Which photo comes next."""

import pytest

from annotation.order import NEVER, Issue, Queue, Rating
from annotation.store import Store
from util.errors import UsageError

NAMES = [f"{i}.jpg" for i in range(6)]


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "o.csv", {})
    yield store
    store.close()


def confirm(store, number: int) -> None:
    store.answer(NAMES[number], ["cat"], store.version(NAMES[number]))


def finish(queue: Queue) -> None:
    """Wait for the background work."""
    queue.start()
    with queue._news:
        assert queue._news.wait_for(lambda: not queue.is_rating, 20)


def test_by_name(store):
    queue = Queue(NAMES, store, range(6))
    seen = []
    for _ in NAMES:
        photo, _ = queue.next("w")
        seen.append(photo)
        confirm(store, photo)
    assert seen == [0, 1, 2, 3, 4, 5]
    assert queue.next("w") == (None, None)
    assert queue.left() == 0


def test_skipped_photos_do_not_come_again(store):
    queue = Queue(NAMES, store, range(6))
    assert queue.next("w") == (0, 1)
    assert queue.next("w", [0]) == (1, 2)
    confirm(store, 1)
    assert queue.next("w", [0]) == (2, 3)
    assert queue.next("w") == (3, 0), "what a window has loaded comes first"


def test_the_most_urgent_photos_come_first(store):
    urgency = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7]

    def rate(photo: int) -> Rating:
        if photo == 3:
            raise UsageError("3.jpg cannot be read")
        return Rating(urgency[photo])

    queue = Queue(NAMES, store, range(6), rate)
    finish(queue)
    order = []
    while (photo := queue.next("w")[0]) is not None:
        order.append(photo)
        confirm(store, photo)
    assert order == [1, 5, 2, 4, 0], "an unreadable photo does not come"


def test_what_is_loaded_keeps_its_place_and_the_rest_is_sorted_again(store):
    queue = Queue(NAMES, store, range(6), ratings={0: Rating(1), 1: Rating(0.5)})
    assert queue.next("w") == (0, 1)
    queue.ratings[4] = Rating(9)
    confirm(store, 0)
    assert queue.next("w") == (1, 4)


def test_two_windows_get_different_photos(store):
    queue = Queue(NAMES, store, range(3))
    first, second = queue.next("one")[0], queue.next("two")[0]
    assert (first, second) == (0, 2), "the first window has loaded photo 1 already"
    confirm(store, 2)
    assert queue.next("two")[0] in (0, 1), "better twice than never"


def test_only_rated_photos(store):
    doubt = Issue("cat", "missing", 0.1)
    queue = Queue(NAMES, store, range(6), lambda i: Rating.of([doubt]) if i == 4 else NEVER)
    queue = Queue(NAMES, store, range(6), queue._rate, only_rated=True)
    queue.is_rating = False
    assert queue.next("w") == (None, None)
    queue.is_rating = True
    finish(queue)
    assert queue.next("w") == (4, None)
    assert queue.issues(4) == (doubt,)
    assert queue.issues(1) == ()


def test_background_work_waits_for_the_user(store):
    queue = Queue(NAMES, store, range(6), lambda i: Rating(1))
    with queue.asking():
        queue.start()
        with queue._news:
            assert not queue._news.wait_for(lambda: queue.ratings, 0.2)
    with queue._news:
        assert queue._news.wait_for(lambda: not queue.is_rating, 20)


def test_stop(store):
    queue = Queue(NAMES, store, range(6), lambda i: Rating(1))
    queue.stop()
    queue.start()
    assert queue.next("w")[0] == 0
    assert not queue.ratings

"""Which photo comes next: by name, the most uncertain, or the most suspicious annotations."""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from annotation.store import Store
from util.errors import UsageError
from util.log import log

FIRST_WAIT = 1.0  # seconds for the first ratings, before a photo is shown
FIRST_RATINGS = 8
MOST_ISSUES = 5  # of a photo: the number keys reach them all


@dataclass(frozen=True)
class Issue:
    """An annotation that the network doubts; surplus: the label is there, but should not be."""

    label: str
    kind: str  # surplus or missing
    probability: float  # that the annotation is right
    suspicion: float = 0.0  # the most suspicious issue has the highest number


@dataclass(frozen=True)
class Rating:
    """How early a photo should come, the highest first; and why: the doubtful annotations."""

    urgency: float
    issues: tuple[Issue, ...] = ()

    @classmethod
    def of(cls, issues: Sequence[Issue]) -> Rating:
        """The most suspicious annotation decides."""
        ranked = sorted(issues, key=lambda issue: -issue.suspicion)
        return cls(ranked[0].suspicion, tuple(ranked[:MOST_ISSUES]))


NEVER = Rating(-math.inf)  # the photo need not come at all
Rate = Callable[[int], Rating]  # raises UsageError for an unreadable photo


class Queue:
    """The photos that wait for an answer. Photos are numbers, in order of name.

    A thread rates them while the user works. Rated photos come first, so the order gets better
    with time; what a window already shows or loads does not change.
    """

    def __init__(
        self,
        names: Sequence[str],
        store: Store,
        waiting: Collection[int],
        rate: Rate | None = None,
        ratings: Mapping[int, Rating] | None = None,
        only_rated: bool = False,
    ) -> None:
        """waiting: the photos that may come. rate: None for the order of names or of `ratings`.

        only_rated: no photo comes before it is rated.
        """
        self.names, self._store, self._waiting = names, store, sorted(waiting)
        self._rate, self.ratings = rate, dict(ratings or {})
        self._only_rated, self._scan = only_rated, self._waiting.copy()
        if rate:  # neighbours are alike: photos from everywhere are the better beginning
            random.Random(0).shuffle(self._scan)
        self._shown: dict[str, tuple[int, ...]] = {}  # by window: what it shows and loads
        self._asking, self._has_waited, self._stopped = 0, False, False
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()
        self.is_rating = rate is not None

    def start(self) -> None:
        """Begin to rate photos in the background."""
        if self._rate:
            self._thread = threading.Thread(target=self._rate_all, name="rating", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the background work after the photo that is being rated."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if self._thread:
            self._thread.join()  # torch aborts if Python ends within it

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """The background work pauses meanwhile: the user waits for an answer."""
        with self._news:
            self._asking += 1
        try:
            yield
        finally:
            with self._news:
                self._asking -= 1
                self._news.notify_all()

    def next(self, window: str, skipped: Collection[int] = ()) -> tuple[int | None, int | None]:
        """The photo that a window should show, and the one after it; None if there is none.

        Two windows get different photos as long as there are enough.
        """
        with self._news:
            if not self._has_waited:
                self._news.wait_for(self._has_some, FIRST_WAIT)
                self._has_waited = True
            kept = self._shown.pop(window, ())[1:]
            elsewhere = {photo for shown in self._shown.values() for photo in shown}
            ranked = sorted(self._open(skipped), key=self._rank)
            ranked = [photo for photo in kept if photo in ranked] + [
                photo for photo in ranked if photo not in kept
            ]
            free = [photo for photo in ranked if photo not in elsewhere] or ranked
            first, second, *_ = [*free[:2], None, None]
            self.show(window, *(photo for photo in (first, second) if photo is not None))
            return first, second

    def show(self, window: str, *photos: int) -> None:
        """Remember what a window shows and loads; the windows used last count."""
        with self._news:
            self._shown.pop(window, None)
            self._shown[window] = photos
            while len(self._shown) > 8:
                del self._shown[next(iter(self._shown))]

    def left(self) -> int:
        """How many photos wait for an answer, as far as they are rated."""
        return len(self._open(()))

    def issues(self, photo: int) -> tuple[Issue, ...]:
        """The doubtful annotations of a photo."""
        return self.ratings[photo].issues if photo in self.ratings else ()

    def _open(self, skipped: Collection[int]) -> list[int]:
        skipped = {*skipped}
        unrated = NEVER if self._only_rated else Rating(0)
        return [
            photo
            for photo in self._waiting
            if photo not in skipped
            and not self._store.is_verified(self.names[photo])
            and self.ratings.get(photo, unrated) is not NEVER
        ]

    def _rank(self, photo: int) -> tuple[bool, float, int]:
        rating = self.ratings.get(photo)
        return rating is None, -rating.urgency if rating else 0.0, photo

    def _has_some(self) -> bool:
        return len(self.ratings) >= FIRST_RATINGS or not self.is_rating or self._stopped

    def _rate_all(self) -> None:
        for photo in self._scan:
            with self._news:
                self._news.wait_for(lambda: self._stopped or not self._asking)
                if self._stopped:
                    return
            if photo in self.ratings or self._store.is_verified(self.names[photo]):
                continue
            try:
                rating = self._rate(photo)
            except UsageError as error:
                log(f"note: {error}")
                rating = NEVER
            with self._news:
                self.ratings[photo] = rating
                self._news.notify_all()
        with self._news:
            self.is_rating = False
            self._news.notify_all()

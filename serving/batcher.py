"""Pictures of many requests -> results, in batches.

One thread has the network. While it works on a batch, pictures of other requests arrive: they are
the next batch. It waits a little for pictures that are accepted and still being decoded, because
decoding label sets costs nearly as much for 8 pictures as for 16. It waits for nothing else, so a
single client never waits.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.predictor import Predictor, rows_of

WAIT = 0.25  # of the time of the last batch, at most
POLL = 0.002  # seconds


@dataclass(frozen=True)
class _Job:
    """A picture 3×S×S uint8, what is known of it, and the place of its result."""

    picture: Tensor
    known: tuple[str, ...]
    absent: tuple[str, ...]
    result: Future[dict] = field(default_factory=Future)


class Batcher:
    """A thread that labels pictures, as many at once as have arrived."""

    def __init__(
        self,
        predictor: Predictor,
        batch_size: int,
        decide: str = "threshold",
        num_samples: int = 128,
        accepted: Callable[[], int] = lambda: 0,
    ) -> None:
        """batch_size: pictures in a batch, at most. decide, num_samples: see `describe_batch`.

        accepted: how many pictures the server has accepted and not answered. Labels a blank
        picture first: raises what that raises.
        """
        self.predictor, self.batch_size = predictor, batch_size
        self.how = {"decide": decide, "num_samples": num_samples}
        self.accepted = accepted
        self._given = self._done = 0  # jobs so far
        self._seconds = 0.0  # of the last batch
        self._jobs = queue.SimpleQueue[_Job | None]()
        self._thread = threading.Thread(target=self._work, name="batches")
        self._thread.start()
        side = predictor.transform.side
        try:
            self.label(torch.zeros(3, side, side, dtype=torch.uint8)).result()
        except BaseException:
            self.stop()
            raise

    def label(
        self, picture: Tensor, known: Sequence[str] = (), absent: Sequence[str] = ()
    ) -> Future[dict]:
        """The result of `Predictor.describe` for a picture 3×S×S uint8, once it is there."""
        job = _Job(picture, tuple(known), tuple(absent))
        self._given += 1
        self._jobs.put(job)
        return job.result

    def stop(self) -> None:
        """Finish what has arrived, then end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job, *self._gather(self.batch_size - 1)]
            started = time.monotonic()
            # a request that was cancelled wants no result, and its future takes none
            self._answer([job for job in jobs if job.result.set_running_or_notify_cancel()])
            self._done += len(jobs)
            self._seconds = time.monotonic() - started

    def _gather(self, most: int) -> list[_Job]:
        """What has arrived, and what arrives soon."""
        jobs: list[_Job] = []
        until = time.monotonic() + WAIT * self._seconds
        while len(jobs) < most:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                on_their_way = self.accepted() - (self._given - self._done)
                if on_their_way <= 0 or time.monotonic() > until:
                    break
                time.sleep(POLL)
                continue
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _answer(self, jobs: list[_Job]) -> None:
        """Set the results. If a batch fails, its pictures are tried alone: one may be at fault."""
        if not jobs:
            return
        try:
            results = self._describe(jobs)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].result.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        for job, result in zip(jobs, results, strict=True):
            job.result.set_result(result)

    def _describe(self, jobs: list[_Job]) -> list[dict]:
        """All are encoded together; those of which the same is known are decoded together."""
        encoding = self.predictor.encode_batch(torch.stack([job.picture for job in jobs]))
        groups: dict[tuple, list[int]] = {}
        for row, job in enumerate(jobs):
            groups.setdefault((job.known, job.absent), []).append(row)
        results: list[dict] = [{} for _ in jobs]
        for (known, absent), rows in groups.items():
            part = rows_of(encoding, rows)
            found = self.predictor.describe_batch(part, known, absent, **self.how)
            for row, result in zip(rows, found, strict=True):
                results[row] = result
        return results

"""Pictures of many requests -> results, in batches.

One thread has the network. While it works on a batch, pictures of other requests arrive: they are
the next batch. It waits a little for pictures that are accepted and still being decoded, and for as
many as the last batch had: their clients have just got answers, and most of them ask again. Without
that, clients fall apart into a large and a small group, and decoding the label sets of 2 pictures
can cost as much as those of 14. A client that is alone and sends single pictures never waits.

On a CPU a batch is split into parts, each with its own thread. Label sets are decoded in thousands
of small steps, and threads that share each step wait for each other most of the time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inference.predictor import Predictor, rows_of

WAIT = 0.25  # of the time of the last batch, at most
POLL = 0.002  # seconds
PART = 4  # pictures, at least: decoding fewer costs nearly as much


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
        self._seconds, self._size = 0.0, 0  # of the last batch
        on_cpu = predictor.model.mean.device.type == "cpu"
        self._threads = torch.get_num_threads() if on_cpu else 1
        # a thread's first use of torch sets its number of threads: here, before `_describe` does
        self._pool = ThreadPoolExecutor(self._threads, "parts", initializer=torch.get_num_threads)
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
        """Finish what has arrived, then end the threads."""
        self._jobs.put(None)
        self._thread.join()
        self._pool.shutdown()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job, *self._gather(self.batch_size - 1)]
            started = time.monotonic()
            # a request that was cancelled wants no result, and its future takes none
            self._answer_all([job for job in jobs if job.result.set_running_or_notify_cancel()])
            self._done += len(jobs)
            self._seconds, self._size = time.monotonic() - started, len(jobs)

    def _gather(self, most: int) -> list[_Job]:
        """What has arrived, and what arrives soon."""
        jobs: list[_Job] = []
        until = time.monotonic() + WAIT * self._seconds
        while len(jobs) < most:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                is_small = len(jobs) + 1 < self._size
                on_their_way = self.accepted() - (self._given - self._done)
                if not (is_small or on_their_way > 0) or time.monotonic() > until:
                    break
                time.sleep(POLL)
                continue
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _answer_all(self, jobs: list[_Job]) -> None:
        """Set the results of a batch."""
        number = min(self._threads, len(jobs) // PART)
        if number > 1:
            parts = [jobs[first::number] for first in range(number)]
            list(self._pool.map(self._answer, parts, [self._threads // number] * number))
        elif jobs:
            self._answer(jobs, self._threads)

    def _answer(self, jobs: list[_Job], threads: int) -> None:
        """Set the results. If a part fails, its pictures are tried alone: one may be at fault."""
        try:
            results = self._describe(jobs, threads)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].result.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job], threads)
            return
        for job, result in zip(jobs, results, strict=True):
            job.result.set_result(result)

    @torch.inference_mode()  # a tenth faster than no_grad
    def _describe(self, jobs: list[_Job], threads: int) -> list[dict]:
        """All are encoded together; those of which the same is known are decoded together."""
        torch.set_num_threads(threads)  # of this thread
        encoding = self.predictor.encode_batch(torch.stack([job.picture for job in jobs]))
        torch.set_num_threads(1)
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

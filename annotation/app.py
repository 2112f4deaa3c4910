"""The page and the questions that it asks, as a Starlette app. See `annotation.guard`, too.

    GET  /                      the page; page.js and page.css
    GET  /photo/12              the photo, at the size of a screen
    POST /next                  {window, skip}            -> state of the next photo
    POST /open                  {window, photo}           -> state of this photo
    POST /score                 {photo, known, absent}    -> probabilities given what is known
    POST /seen                  {photo, label}            -> where the network saw a label
    POST /answer, /undo         {window, photo, version, labels} -> saved; 409 if a version is old

Photos are numbers, never paths.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from annotation.guard import BodyLimit, Guard, refuse
from annotation.order import Queue
from annotation.store import StaleError, Store
from images.decode import load_pixels
from labels.text import folded
from util.errors import RunError, UsageError
from util.log import CONTROLS

if TYPE_CHECKING:  # torch takes seconds to import, and is not needed without a network
    from annotation.scorer import Scorer

PAGE = Path(__file__).parent / "templates"
SIDE = 1600  # pixels of a photo on the page, at most
LETTERS = 100  # of a new label


class Site:
    """What the page asks; each function takes the request's JSON and returns JSON.

    Raises _BadRequest, and what Store, Queue and Scorer raise.
    """

    def __init__(
        self,
        names: Sequence[str],
        paths: Sequence[Path],
        store: Store,
        queue: Queue,
        scorer: Scorer | None = None,
        label_list: Sequence[str] = (),
    ) -> None:
        """names: of the photos, in order. label_list: labels to offer before all others."""
        self.names, self.paths = names, paths
        self.store, self.queue, self.scorer = store, queue, scorer
        self.label_list = label_list

    def next(self, asked: dict) -> dict:
        window, skipped = _text(asked, "window"), asked.get("skip", [])
        if not isinstance(skipped, list) or not all(type(photo) is int for photo in skipped):
            raise _BadRequest("skip must be numbers")
        photo, upcoming = self.queue.next(window, skipped)
        if photo is None:
            return {"photo": None, **self._progress()}
        return {**self._state(photo), "upcoming": upcoming}

    def open(self, asked: dict) -> dict:
        photo = self._photo(asked)
        self.queue.show(_text(asked, "window"), photo)
        return self._state(photo)

    def score(self, asked: dict) -> list:
        photo = self._photo(asked)
        known, absent = self._labels(asked, "known"), self._labels(asked, "absent")
        if {*known} & {*absent}:
            raise _BadRequest("a label is known and absent")
        return self._ranked(photo, known, absent)

    def seen(self, asked: dict) -> list | None:
        photo, label = self._photo(asked), _text(asked, "label")
        return self.scorer.seen_at(photo, label) if self.scorer else None

    def answer(self, asked: dict) -> dict:
        photo, labels = self._photo(asked), self._labels(asked, "labels")
        self.queue.show(_text(asked, "window"), photo)
        self.store.answer(self.names[photo], labels, _text(asked, "version"))
        return {"version": self.store.version(self.names[photo])}

    def undo(self, asked: dict) -> dict:
        photo = self._photo(asked)
        self.store.undo(self.names[photo], _text(asked, "version"))
        self.queue.show(_text(asked, "window"), photo)
        return self._state(photo)

    def _photo(self, asked: dict) -> int:
        photo = asked.get("photo")
        if type(photo) is not int or not 0 <= photo < len(self.names):
            raise _BadRequest("there is no such photo")
        return photo

    def _labels(self, asked: dict, name: str) -> list[str]:
        """Labels that are in use, and new ones if they are short and printable."""
        labels = asked.get(name)
        if not isinstance(labels, list) or not all(type(label) is str for label in labels):
            raise _BadRequest(f"{name} must be texts")
        in_use = {label for label, *_ in self._unscored({})}
        new = [label for label in labels if label not in in_use]
        if any(CONTROLS.search(label) for label in new):
            raise _BadRequest("a label has a control character")
        if any(not folded(label) or len(label) > LETTERS for label in new):
            raise _BadRequest(f"a label needs 1 to {LETTERS} letters")
        return [*dict.fromkeys(label if label in in_use else folded(label) for label in labels)]

    def _state(self, photo: int) -> dict:
        """All that the page shows of a photo."""
        name = self.names[photo]
        version, answer = self.store.version(name), self.store.get(name)  # in this order
        state = {
            "photo": photo,
            "name": name,
            "version": version,
            "verified": self.store.is_verified(name),
            "labels": list(answer.labels) if answer else None,
            "issues": [vars(issue) for issue in self.queue.issues(photo)],
            **self._progress(),
        }
        try:
            return {**state, "ranked": self._ranked(photo)}
        except UsageError as error:
            return {**state, "ranked": self._unscored({}), "error": str(error)}

    def _progress(self) -> dict:
        verified = sum(map(self.store.is_verified, self.names))
        return {
            "progress": {
                "photos": len(self.names),
                "verified": verified,
                "left": self.queue.left(),
                "rated": len(self.queue.ratings),
                "is_rating": self.queue.is_rating,
            }
        }

    def _ranked(self, photo: int, known: Sequence[str] = (), absent: Sequence[str] = ()) -> list:
        """Labels with probability and whether to switch them on, most probable first.

        Those the network does not know are last, with None.
        """
        found, on = {}, set()
        if self.scorer:
            with self.queue.asking():
                found = self.scorer.probabilities(photo, known, absent)
            on = self.scorer.predicted(found, known, absent)
        scored = [[label, round(p, 4), label in on] for label, p in found.items()]
        return scored + self._unscored(found)

    def _unscored(self, found: dict[str, float]) -> list:
        others = dict.fromkeys([*self.label_list, *self.store.labels()])
        others |= dict.fromkeys(self.scorer.labels if self.scorer else ())
        return [[label, None, False] for label in others if label not in found]

    def warm(self, photo: int) -> None:
        """Encode the photo that comes next, while the user looks at this one."""
        if self.scorer:
            with contextlib.suppress(UsageError):  # an unreadable photo says so when it is shown
                self.scorer.encode(photo)

    def picture(self, photo: int) -> bytes:
        """A JPEG, upright, of SIDE pixels at most. Raises UsageError for an unreadable photo."""
        image = Image.fromarray(load_pixels(self.paths[photo], SIDE))
        image.thumbnail((SIDE, SIDE))
        data = io.BytesIO()
        image.save(data, "JPEG", quality=88)
        return data.getvalue()


class _BadRequest(Exception):  # noqa: N818
    """The message says what is wrong with a request."""


def _text(asked: dict, name: str) -> str:
    value = asked.get(name)
    if type(value) is not str or len(value) > 1000:
        raise _BadRequest(f"{name} must be a text")
    return value


def make_app(site: Site, port: int) -> Starlette:
    """The app for `http://127.0.0.1:port/`."""

    async def picture(request: Request) -> Response:
        photo = request.path_params["photo"]
        if not photo < len(site.names):
            return Response(status_code=404)
        try:
            data = await run_in_threadpool(site.picture, photo)
        except UsageError:
            return Response(status_code=404)
        # the page asks with its start's token, so that no other start's photo is taken for it
        return Response(data, media_type="image/jpeg", headers={"cache-control": "max-age=3600"})

    asking = (site.next, site.open, site.score, site.seen, site.answer, site.undo)
    routes = [
        *(_file(path, name) for path, name in (("/", "page.html"), ("/page.js", "page.js"))),
        _file("/page.css", "page.css"),
        Route("/photo/{photo:int}", picture),
        *(_question(site, function) for function in asking),
    ]
    guard = Middleware(Guard, reason_against=functools.partial(refuse, port=port))
    return Starlette(routes=routes, middleware=[guard, Middleware(BodyLimit)])


def _file(path: str, name: str) -> Route:
    def serve(request: Request) -> Response:
        return FileResponse(PAGE / name, headers={"cache-control": "no-store"})

    return Route(path, serve)


def _question(site: Site, function: Callable[[dict], object]) -> Route:
    async def serve(request: Request) -> Response:
        try:
            asked = await request.json()
            if not isinstance(asked, dict):
                raise _BadRequest("an object is needed")
            found = await run_in_threadpool(function, asked)
        except StaleError:
            state = await run_in_threadpool(site.open, asked)
            return JSONResponse(state, 409)
        except (_BadRequest, ValueError, RecursionError, UsageError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except RunError as error:
            return JSONResponse({"error": str(error)}, 500)
        later = found.get("upcoming") if isinstance(found, dict) else None
        task = BackgroundTask(site.warm, later) if later is not None else None
        return JSONResponse(found, background=task)

    return Route(f"/{function.__name__}", serve, methods=["POST"])

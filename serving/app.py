"""What serve.py answers, as a FastAPI app. See `serving.gate` and `annotation.guard`, too.

    POST /predict   a form with pictures `images`, and labels `known` and `absent`, each as often as
                    needed -> a list: for each picture the object that `sample.py --json` prints
    GET  /labels    -> the labels of the network, the most frequent first
    GET  /healthz   -> {"status": "ok"}; 503 and "closing" while the server ends
    GET  /          a page to try it; /openapi.json describes the above for programs

An error is {"error": sentence}: 400 for a wrong request, and those of gate.py.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from annotation.app import PAGE as ANNOTATION
from annotation.guard import Guard
from serving.batcher import Batcher
from serving.gate import Gate, Limits, Places, refuse
from serving.uploads import Decoders
from util.errors import UsageError
from util.log import printable

PREDICT = "/predict"
PAGE = Path(__file__).parent / "templates"
FILES = {"/": PAGE / "page.html", "/page.js": PAGE / "page.js", "/page.css": PAGE / "page.css"}
FILES["/colours.css"] = ANNOTATION / "page.css"  # the page looks as that of annotate.py
NAME = 200  # letters of a picture's name in an answer, at most
FORM = "send pictures as `images` of a form (multipart/form-data), labels as `known` and `absent`"


def make_app(
    batcher: Batcher, decoders: Decoders, limits: Limits, places: Places, names: Collection[str]
) -> FastAPI:
    """The app. names: under which it is asked, besides localhost and IP addresses."""
    predictor = batcher.predictor
    middleware = [
        Middleware(Guard, reason_against=functools.partial(refuse, names=names)),
        Middleware(Gate, path=PREDICT, limits=limits, places=places),
    ]
    app = FastAPI(title="HybridNet", docs_url=None, redoc_url=None, middleware=middleware)

    @app.post(PREDICT)
    async def predict(
        request: Request,
        images: Annotated[list[UploadFile], File(description="pictures")],
        known: Annotated[list[str] | None, Form(description="labels that are there")] = None,
        absent: Annotated[list[str] | None, Form(description="labels that are not")] = None,
    ) -> JSONResponse:
        """For each picture the object that `sample.py --json` prints."""
        request.scope["place"].widen(len(images))
        known, absent = known or [], absent or []
        check_length([*known, *absent], predictor.labels)
        if known or absent:
            await decoders.run(predictor.encode_known, known, absent)  # an error before all work
        sent = [(name_of(image, number), image.file) for number, image in enumerate(images, 1)]
        work = (decoders.run(decoders.decode, name, file) for name, file in sent)
        pictures = await asyncio.gather(*work, return_exceptions=True)
        for error in pictures:
            if isinstance(error, BaseException):
                raise error
        results = [batcher.label(picture, known, absent) for picture in pictures]
        results = await asyncio.gather(*map(asyncio.wrap_future, results))
        return JSONResponse(
            [{"image": name, **found} for (name, _), found in zip(sent, results, strict=True)]
        )

    @app.get("/labels")
    async def labels() -> list[str]:
        """The labels of the network, the most frequent first."""
        return list(predictor.labels)

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """Whether the server takes requests."""
        status = "closing" if places.closing else "ok"
        return JSONResponse({"status": status}, 503 if places.closing else 200)

    for path, file in FILES.items():
        answer = functools.partial(FileResponse, file, headers={"cache-control": "no-store"})
        app.add_route(path, lambda request, answer=answer: answer())
    add_error_handlers(app)
    return app


def add_error_handlers(app: FastAPI) -> None:
    """All errors that a client is to blame for have the same form."""

    @app.exception_handler(HTTPException)
    async def on_refusal(request: Request, error: HTTPException) -> JSONResponse:
        return say(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_wrong_form(request: Request, error: RequestValidationError) -> JSONResponse:
        return say(400, FORM)

    @app.exception_handler(UsageError)
    async def on_usage_error(request: Request, error: UsageError) -> JSONResponse:
        return say(400, str(error))


def say(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error. What a client sent may be in the sentence, so control characters are escaped."""
    return JSONResponse({"error": printable(sentence)}, status, headers)


def check_length(given: list[str], labels: Collection[str]) -> None:
    """Raise UsageError for a text longer than all labels: a similar one is not searched for."""
    most = max(map(len, labels))
    if any(len(label) > most for label in given):
        raise UsageError(f"the model knows no label of more than {most} letters")


def name_of(image: UploadFile, number: int) -> str:
    """A name for answers, from what the client calls the picture."""
    return printable(image.filename or f"image {number}")[:NAME]

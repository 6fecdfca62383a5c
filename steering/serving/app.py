"""The addresses of a server, as a FastAPI application."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response

from affectlens.steering.serving.answering import Answer
from affectlens.steering.serving.guarding import Guard
from affectlens.steering.serving.refusals import Json, Refusal, on_http_error, on_invalid
from affectlens.steering.serving.schemas import Asked, ChatAsked, TextAsked
from affectlens.steering.serving.service import Service
from affectlens.steering.serving.streaming import Reply, Stream, left

_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


def build_app(service: Service) -> FastAPI:
    """The application of a service, to be run by uvicorn or within another one.

    Args:
        service: what answers.
    """
    app = FastAPI(title="AffectLens", docs_url=None, redoc_url=None)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_middleware(Guard, service=service)
    if service.settings.origin is not None:
        app.add_middleware(CORSMiddleware, allow_origins=[service.settings.origin], allow_methods=["GET", "POST"],
                           allow_headers=["*"], expose_headers=["retry-after"])  # fmt: skip
    _add_replies(app, service)
    _add_models(app, service)
    _add_watching(app, service)
    return app


def _add_replies(app: FastAPI, service: Service) -> None:
    async def answered(asked: Asked, request: Request, chat: bool) -> Response:
        flow = await service.begin(asked, lambda: left(request.receive))
        answer = Answer(service, flow, chat=chat)
        if not asked.stream:
            return Reply(service, answer)
        options = asked.stream_options
        return Stream(service, answer, usage=bool(options and options.include_usage))

    @app.post("/v1/chat/completions", response_class=Response)
    async def chat_completions(asked: ChatAsked, request: Request) -> Response:
        """A reply to a conversation."""
        return await answered(asked, request, True)

    @app.post("/v1/completions", response_class=Response)
    async def completions(asked: TextAsked, request: Request) -> Response:
        """A text gone on with."""
        return await answered(asked, request, False)


def _add_models(app: FastAPI, service: Service) -> None:
    settings = service.settings
    emotions = list(service.moods.directions.emotions)
    facts: dict[str, Any] = {"id": settings.name, "object": "model", "created": 0, "owned_by": "affectlens",
                             "emotions": emotions, "context": service.engine.runner.n_ctx}  # fmt: skip

    @app.get("/v1/models", response_class=Response)
    async def models() -> Response:
        """The one model."""
        return Json({"object": "list", "data": [facts]})

    @app.get("/v1/models/{name:path}", response_class=Response)
    async def model(name: str) -> Response:
        """A model."""
        if name != settings.name:
            raise Refusal(404, f"There is no model {name!r} here, only {settings.name!r}.", code="model_not_found")
        return Json(facts)


def _add_watching(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_class=Response)
    async def healthz() -> Response:
        """Whether it takes requests."""
        return PlainTextResponse(service.trouble or "ok", 503 if service.trouble else 200)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What it has counted."""
        return Response(service.counts.text(), media_type=_FORMAT)

    @app.get("/", response_class=Response)
    async def index() -> Response:
        """What this is."""
        emotions = ", ".join(service.moods.directions.emotions)
        return PlainTextResponse(
            f"AffectLens serves {service.settings.name}, steered by request: POST /v1/chat/completions with an "
            f'"emotion" such as {{"joy": 0.6}}; it knows {emotions}.\n'
        )

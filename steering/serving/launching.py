"""What ``affectlens serve`` does once its options are read."""

from dataclasses import dataclass
from pathlib import Path

from affectlens.console import say
from affectlens.model import LensModel, load_model
from affectlens.steering.engines.engine import Engine
from affectlens.steering.engines.runner import Runner
from affectlens.steering.launching import find_directions
from affectlens.steering.serving.running import address, bound, serve_forever
from affectlens.steering.serving.service import Service
from affectlens.steering.serving.settings import Settings
from affectlens.steering.starting import gguf_for


@dataclass(frozen=True)
class Launch:
    """What was typed, besides the settings."""

    model: str
    directions: Path | None
    probes: Path | None
    host: str
    port: int
    slots: int
    queue: int
    engine: str
    gguf: Path | None
    device: str | None
    dtype: str
    revision: str | None
    quiet: bool


def launch(typed: Launch, settings: Settings) -> None:
    """Load, say where, and serve until Ctrl-C.

    Args:
        typed: the options.
        settings: names and limits.

    Raises:
        SteerError: what can't be served so.
    """
    show = False if typed.quiet else None
    gguf = gguf_for(typed.engine, typed.gguf, typed.model, show=show)
    found = find_directions(typed.model, typed.directions, list(settings.doses))
    with bound(typed.host, typed.port) as listener:
        model = load_model(typed.model, device=typed.device, dtype=typed.dtype, revision=typed.revision, progress=show)
        found.expect(model)
        engine = Engine(_runner(model, gguf, typed.slots), room=typed.queue)
        try:
            service = Service(engine, found, settings=settings, probes=typed.probes)
            listener.listen()  # whoever reads the address can ask at once
            url = address(listener)
            print(url if typed.quiet else opening(url, service), flush=True)  # unwrapped: lines to be copied
            serve_forever(service, listener)
        finally:
            engine.close(0.0)
    if not typed.quiet:
        say("Stopped.")


def opening(url: str, service: Service) -> str:
    """What is said at the start.

    Args:
        url: where it is.
        service: what is served.
    """
    name, emotions = service.settings.name, service.moods.directions.emotions
    first = "joy" if "joy" in emotions else emotions[0]
    token = service.settings.token is not None
    header = ' -H "Authorization: Bearer $TOKEN"' if token else ""
    steered = f'"emotion": {{"{first}": 0.6}}'
    body = f'{{"model": "{name}", "messages": [{{"role": "user", "content": "How are you?"}}], {steered}}}'
    key = "os.environ['TOKEN']" if token else "'none'"
    return (
        f"{name} is served at {url}/v1 ({service.engine.runner.says}); directions of {', '.join(emotions)}. "
        "Ctrl-C stops.\n"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{header} -d '{body}'\n"
        f"  OpenAI(base_url='{url}/v1', api_key={key}).chat.completions.create(model='{name}', "
        f"messages=[...], extra_body={{'emotion': {{'{first}': 0.6}}}})"
    )


def _runner(model: LensModel, gguf: Path | None, slots: int) -> Runner:
    if gguf is not None:
        from affectlens.steering.engines.llama import LlamaCpp

        return LlamaCpp(model, gguf, slots=slots)
    from affectlens.steering.engines.together import Together

    return Together(model, slots)

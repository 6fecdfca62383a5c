"""``affectlens serve``."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[str, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")],
    directions: Annotated[
        Path | None, typer.Option(help="A file of directions. Default: those bundled for MODEL.")
    ] = None,
    probes: Annotated[Path | None, typer.Option(help="A file of probes, for gates and loops that ask one.")] = None,
    default_emotion: Annotated[
        list[str] | None, typer.Option(metavar="NAME=DOSE", help="Of requests that name none: joy=0.6; repeat.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; what others can reach needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    slots: Annotated[int, typer.Option(min=1, help="Replies that are written at a time.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more get 429.")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 120.0,
    drain: Annotated[float, typer.Option(min=0.0, help="Seconds that running replies get at the end.")] = 30.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The most that one request may ask for.")] = 1024,
    max_body: Annotated[str, typer.Option(metavar="SIZE", help="The largest request: 1MB, 512KB, bytes.")] = "1MB",
    token_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with the token. Default: AFFECTLENS_TOKEN."),
    ] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="Serve everybody who can reach the address.")] = False,
    cors: Annotated[str | None, typer.Option(metavar="ORIGIN", help="Let this web page's scripts ask.")] = None,
    engine: Annotated[str, typer.Option(help="torch or llama.cpp.")] = "torch",
    gguf: Annotated[Path | None, typer.Option(help="Of llama.cpp: the file. Default: MODEL's own.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the address alone.")] = False,
) -> None:
    """Serve MODEL over OpenAI's API; each request may name the emotion that it wants.

    Example: affectlens serve smollm2-135m
    """
    from affectlens.steering.serving.settings import Settings, find_token, loopback, names_of, parse_size
    from affectlens.steering.typed import parse_doses

    token = find_token(host, token_env, no_token)
    guarded = loopback(host) and token is None
    size, doses = parse_size(max_body), parse_doses(default_emotion or [])
    from affectlens.steering.serving.launching import Launch, launch
    from affectlens.steering.serving.running import served_name

    settings = Settings(
        served_name(model), timeout=timeout, max_tokens=max_tokens, max_body=size, token=token,
        hosts=names_of(host) if guarded else (), origin=cors, doses=doses, drain=drain,
    )  # fmt: skip
    launch(
        Launch(model, directions, probes, host, port, slots, queue, engine, gguf, device, dtype, revision, quiet),
        settings,
    )

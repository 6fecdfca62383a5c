"""``affectlens steer``."""

from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from affectlens.errors import SteerError
from affectlens.steering.typed import parse_doses, parse_layers

_RESUMED = {"resume", "evaluate", "as_json", "quiet"}
_SETTINGS = {"model", "emotion", "directions", "quick", "seed", "out", "device", "dtype", "revision", "endpoint",
             "endpoint_model", "endpoint_key"}  # fmt: skip
_TAKES = {"--resume": _RESUMED, "--evaluate": _RESUMED | _SETTINGS}
_LEAVES = {
    "--interactive": {"prompt", "explain", "stream", "plain", "as_json", "no_chat"},
    "--stream": {"as_json", "probes", "explain"}, "--plain": {"probes"}, "--quiet": {"probes"},
}  # fmt: skip
_SPELLED = {"prompt": "PROMPT", "model": "MODEL", "as_json": "--json"}


def steer(
    model: Annotated[str | None, typer.Argument(help="Catalogue name, Hugging Face id, or folder.")] = None,
    prompt: Annotated[str | None, typer.Argument(help="What the model replies to.")] = None,
    emotion: Annotated[
        list[str] | None,
        typer.Option("--emotion", "-e", help="joy=0.6: an emotion, and its dose, of which 1.0 is safe; repeat."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Doses are shares of the site's median norm instead.")] = False,
    directions: Annotated[
        Path | None, typer.Option(help="A file of directions. Default: those bundled for MODEL.")
    ] = None,
    operator: Annotated[str, typer.Option(help="add, ceiling(95), project_out, clamp(90) or rotate(30).")] = "add",
    layers: Annotated[
        str | None, typer.Option(help="Only directions of these layers: 14, or 12,14, or 12-16. Default: all.")
    ] = None,
    positions: Annotated[str, typer.Option(help="all, prompt, response or first(8).")] = "all",
    schedule: Annotated[str, typer.Option(help="constant, decay(16) or ramp(16), in reply tokens.")] = "constant",
    conflict: Annotated[str, typer.Option(help="Several at one site: sum, orthogonal or strongest.")] = "sum",
    gate: Annotated[
        str | None, typer.Option(help='Steer only where "fear>90" (percentile of neutral) or "probe:joy<0" (logit).')
    ] = None,
    loop: Annotated[
        str | None, typer.Option(help='Steer less as the reply nears "joy<75"; "joy<75, gain 2, memory 8".')
    ] = None,
    probes: Annotated[
        Path | None, typer.Option(help="Colour the tokens by these probes, which a gate or a loop may name.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What writes: torch or llama.cpp.")] = "torch",
    gguf: Annotated[Path | None, typer.Option(help="Of llama.cpp: the file. Default: MODEL's own.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of sampling; the same for both replies.")] = 0,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="Go on with the prompt, without a chat template.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain/--beside", help="The steered reply alone, or beside the unsteered one.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print as it is written, without colours.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the plan will do, and stop.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="A conversation; /help lists.")] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Find safe doses and measure them beside placebos and prompting.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Of --evaluate: fewer prompts, doses and placebos.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder of --evaluate. Default: runs/MODEL-steer-TIME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped evaluation to continue.")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(help="Of --evaluate: a third judge, an OpenAI-compatible API: http://localhost:8000/v1."),
    ] = None,
    endpoint_model: Annotated[str, typer.Option(help="The endpoint's name of its model.")] = "",
    endpoint_key: Annotated[str, typer.Option(help="The environment variable that holds its key.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="The steered reply alone; of --evaluate the report's path.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: cuda where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Let MODEL reply with an emotion turned up or down, beside its plain reply.

    Example: affectlens steer smollm2-135m "Tell me about your day" --emotion joy=0.6
    """
    _check_modes(locals())
    if evaluate or resume is not None:
        from affectlens.steering.measuring import run_evaluation

        if endpoint and not endpoint_model:
            raise SteerError("Name the endpoint's model: --endpoint-model NAME.")
        server = {"url": endpoint, "model": endpoint_model, "key_env": endpoint_key} if endpoint else None
        settings = {"directions": directions, "quick": quick, "seed": seed, "device": device, "dtype": dtype,
                    "revision": revision, "endpoint": server}  # fmt: skip
        run_evaluation(model, emotion or [], settings, out=out, resume=resume, as_json=as_json, quiet=quiet)
        return
    doses = parse_doses(emotion or [])
    if not model:
        raise SteerError('Name a model, for example: affectlens steer smollm2-135m "How are you?" --emotion joy=0.6')
    if not (doses or interactive):
        raise SteerError("No emotion is named: give one with its dose, --emotion joy=0.6.")
    if not (interactive or explain) and not (prompt or "").strip():
        raise SteerError("The prompt is empty: say what the model is to reply to, in quotes.")
    how: dict[str, Any] = {
        "raw": raw, "operator": operator, "layers": parse_layers(layers), "positions": positions, "schedule": schedule,
        "conflict": conflict, "gate": gate, "loop": loop, "probes": probes,
    }  # fmt: skip
    from affectlens.steering import launching, replying, starting

    launching.check_forms(operator, positions, schedule, conflict)
    named = launching.thresholds_in(gate, loop, probes)
    how["directions"] = launching.find_directions(model, directions, [*doses, *named])
    show = False if quiet or as_json else None
    if engine == starting.LLAMA:
        launching.check_llama(doses, how)
    file = starting.gguf_for(engine, gguf, model, show=show, fetch=not explain)
    from affectlens.model import load_model

    lens = load_model(model, device=device, dtype=dtype, revision=revision, progress=show)
    decoding = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    asked = launching.Asked(lens, prompt or "", doses, how, decoding, not no_chat, as_json, quiet, probes, file)
    if explain:
        launching.explain(asked)
    elif interactive:
        launching.talk(asked)
    elif plain or quiet or stream:
        replying.write_plainly(asked, streamed=stream, both=not (plain or quiet))
    else:
        replying.show_beside(asked)


def _check_modes(given: dict[str, Any]) -> None:
    """Refuse what was typed beside a mode that has no use for it."""
    defaults = {name: one.default for name, one in signature(steer).parameters.items()}
    typed = {name for name, value in given.items() if value != defaults[name] and value != []}
    modes = [mode for mode in ("--resume", "--evaluate") if mode[2:] in typed]
    unused = typed - _TAKES[modes[0]] if modes else set[str]()
    if not modes and typed & {"quick", "out", "endpoint", "endpoint_model", "endpoint_key"}:
        raise SteerError("--quick, --out and --endpoint belong to --evaluate: add it, or leave them out.")
    if any(str(given[name]).startswith("probe:") for name in ("gate", "loop")):
        typed -= {"probes"}  # they are read, if not shown
    for mode, left in _LEAVES.items():
        if not unused and mode[2:] in typed and typed & left:
            modes, unused = [mode], typed & left
    if unused:
        names = ", ".join(sorted(_SPELLED.get(name, "--" + name.replace("_", "-")) for name in unused))
        raise SteerError(f"{modes[0]} has no use for {names}: leave out one or the other.")

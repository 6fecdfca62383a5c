"""``affectlens patch`` and ``affectlens ablate``."""

import re
from typing import Annotated

import typer

from affectlens import options
from affectlens.patching import options as given
from affectlens.patching.launching import launch

DIRECTIONS = {"denoise": ("denoise",), "noise": ("noise",), "both": ("denoise", "noise")}


def patch(
    model: options.ModelName = None,
    battery: options.BatteryName = "starter",
    contrast: given.Contrast = None,
    crossed: Annotated[
        bool, typer.Option("--crossed", help="The crossed quadruples, both ways, with crossed_fact beside them.")
    ] = False,
    site: Annotated[
        list[str] | None,
        typer.Option(help="resid_post, heads, mlp_out, L12.z, q.each; repeat. Default: resid_post, 16 layers."),
    ] = None,
    position: Annotated[
        list[str] | None,
        typer.Option(help="changed, shared, ending, cue, last, all, each, span:WORDS, -1; repeat. Default: segments."),
    ] = None,
    direction: Annotated[str, typer.Option(help="denoise, noise or both.")] = "denoise",
    metric: given.Metrics = None,
    control: Annotated[
        list[str] | None,
        typer.Option(help="random, same_emotion, neutral, wrong_position; repeat. Default: all, quick two."),
    ] = None,
    no_controls: Annotated[bool, typer.Option("--no-controls", help="None: no cell can be shown specific.")] = False,
    pairs: given.Groups = None,
    cue: given.Cue = None,
    chat: options.Chat = False,
    layer: given.Layer = None,
    quick: given.Quick = False,
    out: options.Out = None,
    resume: options.Resume = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    memory: given.Memory = 1.0,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Patch values of MODEL from one text of a pair into its twin: where is what tells them apart?

    Example: affectlens patch smollm2-135m
    """
    from affectlens.errors import PatchError
    from affectlens.patching.settings import METRICS, PatchPlan, Settings

    if direction not in DIRECTIONS:
        raise PatchError(f"direction is {direction!r}; choose denoise, noise or both.")
    if no_controls and control:
        raise PatchError("--no-controls and --control exclude one another: leave one out.")
    settings = Settings(
        model or "", battery, contrast, _named(metric) or METRICS, pairs, cue, chat, layer, quick, seed, device, dtype,
        revision, memory,
    )  # fmt: skip
    at = tuple(int(one) if re.fullmatch(r"-?\d+", one) else one for one in _named(position))
    controls = () if no_controls else _named(control) or None
    plan = PatchPlan(_named(site), at, DIRECTIONS[direction], controls, crossed)
    launch("patch", settings, plan, out=out, resume=resume, dry_run=dry_run, as_json=as_json, quiet=quiet)


def ablate(
    model: options.ModelName = None,
    battery: options.BatteryName = "starter",
    contrast: given.Contrast = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="attn_out, mlp_out, L12.z, L3.N17; repeat. Default: both at 16 layers."),
    ] = None,
    kind: Annotated[str, typer.Option(help="mean (of other texts), zero, or resample (another text's).")] = "mean",
    position: Annotated[
        list[str] | None,
        typer.Option(help="text, changed, shared, ending, cue, last, span:WORDS; repeat. Default: text."),
    ] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Each attention head by itself; of a knockout too.")] = False,
    cumulative: Annotated[
        bool, typer.Option("--cumulative", help="The first site, the first two, and so on, in the order named.")
    ] = False,
    knockout: Annotated[
        list[str] | None,
        typer.Option(help="FROM:TO, such as changed:last: tokens of TO can't attend to those of FROM; repeat."),
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Layers that a knockout cuts together.")] = 1,
    no_controls: Annotated[
        bool, typer.Option("--no-controls", help="Without the random changes of the same norm.")
    ] = False,
    metric: given.Metrics = None,
    pairs: given.Groups = None,
    cue: given.Cue = None,
    chat: options.Chat = False,
    layer: given.Layer = None,
    quick: given.Quick = False,
    out: options.Out = None,
    resume: options.Resume = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    dtype: options.Dtype = "float32",
    revision: options.Revision = None,
    memory: given.Memory = 1.0,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Take values away from MODEL in both texts of a pair: is what a site computes used?

    Example: affectlens ablate smollm2-135m --site attn_out --kind mean
    """
    from affectlens.patching.settings import METRICS, AblatePlan, Settings

    edges, named = _named(knockout), _named(site)
    sites = (*named, *(["heads"] if heads and not edges else []))
    settings = Settings(
        model or "", battery, contrast, _named(metric) or METRICS, pairs, cue, chat, layer, quick, seed, device, dtype,
        revision, memory,
    )  # fmt: skip
    plan = AblatePlan(sites, kind, _named(position) or AblatePlan.positions, edges, window, cumulative, heads,
                      not no_controls)  # fmt: skip
    launch("ablate", settings, plan, out=out, resume=resume, dry_run=dry_run, as_json=as_json, quiet=quiet)


def _named(names: list[str] | None) -> tuple[str, ...]:
    """What was named, each once."""
    return tuple(dict.fromkeys(names or ()))

"""What the command line was asked, in the terms of ``extract``."""

from affectlens.errors import SteerError
from affectlens.needs import needs
from affectlens.sites import Site
from affectlens.steering.typed import parse_layers
from affectlens.stimuli.battery import load_battery
from affectlens.types import Json


def resolved(sites: list[str], layers: str | None, n_layers: int) -> list[str]:
    """Sites with layers: those without one at the layers named, by default the middle one.

    >>> resolved(["resid_post", "L12.H3"], "3,4", 30)
    ['L3.resid_post', 'L4.resid_post', 'L12.H3']
    >>> resolved(["resid_post"], None, 30)
    ['L14.resid_post']

    Args:
        sites: with or without a layer.
        layers: ``10,14``, ``12-16``, or ``all``.
        n_layers: how many the model has.

    Raises:
        SteerError: layers of another form, or that the model lacks.
        SiteError: a site that is none.
    """
    asked = parse_layers(layers)
    middle = max(0, n_layers // 2 - 1)
    at = asked if asked is not None else [middle] if layers is None else list(range(n_layers))
    placed = [[one] if one.startswith(("L", "blocks.")) else [f"L{layer}.{one}" for layer in at] for one in sites]
    found = [site for several in placed for site in several]
    if beyond := sorted({Site.parse(site).layer for site in found} - set(range(n_layers))):
        raise SteerError(
            f"There is no layer {', '.join(map(str, beyond))}: the model has {n_layers}, 0 to {n_layers - 1}."
        )
    return found


def left_out(pairs: list[str]) -> dict[str, list[str]]:
    """``COLUMN=VALUE`` texts as column to values.

    >>> left_out(["domain=work", "domain=health"])
    {'domain': ['work', 'health']}

    Args:
        pairs: the texts.

    Raises:
        SteerError: a text of another form.
    """
    out: dict[str, list[str]] = {}
    for pair in pairs:
        column, mark, value = pair.partition("=")
        if not (column and mark and value):
            raise SteerError(f"--leave-out is {pair!r}: write COLUMN=VALUE, for example domain=health.")
        out.setdefault(column, []).append(value)
    return out


def forecast(model: str, battery: str, sites: list[str], layers: str | None) -> Json:
    """Memory, and the time of a capture that is not stored yet; no weights are fetched or loaded.

    Args:
        model: as for ``affectlens directions extract``.
        battery: as for it.
        sites: as for :func:`resolved`.
        layers: as for :func:`resolved`.

    Raises:
        SteerError: layers of another form, or that the model's configuration does not have.
        SiteError: a site that is none.
    """
    from affectlens.probing.estimate import measure_flops

    parse_layers(layers)
    facts = needs(model, load_battery(battery))
    if "note" in facts:
        return facts
    resolved(sites, layers, facts["layers"])
    tokens = next(count for name, count in facts.items() if name.startswith("tokens"))
    seconds = 2e6 * facts["parameters (millions)"] * tokens / measure_flops()
    return facts | {"capture (seconds, none if it is stored)": round(seconds, 1)}

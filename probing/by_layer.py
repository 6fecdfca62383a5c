"""What a report says of its layers: where the band is above the floor, and the permutation p. Markdown."""

import numpy as np

from affectlens.probing.report import ProbeReport


def by_layer(report: ProbeReport) -> str:
    """Where the simultaneous band of probe minus floor is above zero, as a sentence."""
    return f"By layer, in a band that holds for all {len(report.layers)} at once: {reach(report)}."


def reach(report: ProbeReport) -> str:
    """The same as a clause."""
    above = (report.layers["low"] > 0).to_numpy()
    layers = report.layers["layer"].to_numpy()
    if not above.any():
        return "no single layer is above the floor"
    if above.all():
        return "above the floor at every layer"
    if above[-1] and above[int(np.argmax(above)) :].all():
        return f"above the floor from layer {layers[int(np.argmax(above))]} on"
    return f"above the floor at {spans(layers[above].tolist())}"


def spans(layers: list[int]) -> str:
    """Layers as runs.

    >>> spans([3, 4, 5, 9])
    'layers 3 to 5 and 9'
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    said = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    listed = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    return ("layer " if len(layers) == 1 else "layers ") + listed


def permuted(report: ProbeReport) -> str:
    """The permutation p of the best layer, against both nulls."""
    table = report.layers
    chance, floor = table["p_chance_adjusted"].min(), table["p_floor_adjusted"].min()
    best = int(table["layer"].to_numpy()[table["t_floor"].to_numpy().argmax()])
    return (
        "Permutation of a closed-form ridge, the best layer chosen inside each of 1,000 draws: "
        f"p = {chance:.3f} against chance in these domains; p = {floor:.3f} against what the floor's predictions leave "
        f"of the labels, strongest at layer {best} (not exact: the claim rests on the difference)."
    )

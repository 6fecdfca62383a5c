"""What the studies of new contexts give: tidy tables with intervals, which say and draw themselves."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from affectlens.stats import Estimate
from affectlens.types import Json

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

UNIT = "scene"  # what is resampled
ALL = "all"  # continuations averaged
NONE, NEUTRAL = "none", "neutral"  # the system prompts that others are compared with


@runtime_checkable
class Result(Protocol):
    """What can be shown."""

    def summary(self) -> list[str]: ...
    def plot(self) -> "Figure": ...
    def _repr_html_(self) -> str: ...


@dataclass(frozen=True)
class Persistence:
    """The outcome of :func:`affectlens.probing.contexts.persisting.persistence`.

    ``curve`` has one row a token and continuation (``all`` is their mean): ``continuation, token`` (from 1), ``value,
    low, high`` (pointwise), ``band_low, band_high`` (simultaneous), ``t, n``; and for ``all`` ``p_random, p_shuffled``,
    each also ``_adjusted`` by max-T over tokens, and ``random_limit``, within which 95% of random directions stay at
    every token.
    """

    meta: Json
    curve: pd.DataFrame
    passage: Estimate  # the held-out difference on the passages themselves
    near: Estimate  # its mean over the first tokens after them, ten if there are as many
    far: Estimate  # and over the last
    lasts: Estimate  # tokens until the simultaneous band touches zero; all of them if it never does
    half_life: Estimate | None  # tokens; None where nothing lasts

    @property
    def n_tokens(self) -> int:
        """How many tokens were read after each passage."""
        return int(self.curve["token"].max())

    @property
    def p(self) -> float:
        """Adjusted p of the claim that some token differs: the larger of both placebos', where that is least."""
        return float(self.of()[["p_random_adjusted", "p_shuffled_adjusted"]].max(axis=1).min())

    @property
    def open_ended(self) -> bool:
        """Whether the band is still above zero at the last token that was read."""
        return self.lasts.value >= self.n_tokens

    def of(self, continuation: str = ALL) -> pd.DataFrame:
        """The rows of one continuation (``1``, ``2`` and so on), in the order of tokens."""
        return self.curve[self.curve["continuation"] == continuation].reset_index(drop=True)

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        from affectlens.probing.contexts.words import persisted

        return persisted(self)

    def plot(self) -> "Figure":
        """The difference by token with its simultaneous band, each continuation, and the reach of random directions."""
        from affectlens.probing.contexts.figures import fading_curve

        return fading_curve(self)

    def __repr__(self) -> str:
        return _said(self)

    def _repr_html_(self) -> str:
        return _html(self, f"Persistence of {self.meta['target']}", None)

    def _ipython_display_(self) -> None:
        _show(self)


@dataclass(frozen=True)
class Malleability:
    """The outcome of :func:`affectlens.probing.contexts.instructing.malleability`.

    ``table`` has one row a measure, prompt and what it is compared ``against``: ``measure, prompt, against, value, low,
    high, n, p, p_adjusted`` (sign flips by scene, max-T over prompts), ``p_random, p_random_adjusted`` (against random
    directions), ``method``. Measures: ``shift`` and ``contrast`` (change of emotional less neutral), in standard
    deviations of the neutral items' scores without a system prompt; ``auroc`` within scenes and its ``auroc_change``.
    """

    meta: Json
    table: pd.DataFrame

    def estimate(self, measure: str, prompt: str, against: str = NONE) -> Estimate:
        """One cell of the table; ``auroc`` is compared with nothing.

        Raises:
            KeyError: if there is no such row.
        """
        chosen = self.rows(measure, "" if measure == "auroc" else against)
        chosen = chosen[chosen["prompt"] == prompt]
        if chosen.empty:
            raise KeyError(f"no {measure} of {prompt!r} against {against!r}")
        row = chosen.iloc[0]
        p, adjusted = (None if np.isnan(row[c]) else float(row[c]) for c in ("p", "p_adjusted"))
        return Estimate(row["value"], row["low"], row["high"], int(row["n"]), UNIT, p, adjusted, row["method"])

    def rows(self, measure: str, against: str = NONE) -> pd.DataFrame:
        """The rows of one measure."""
        return self.table[(self.table["measure"] == measure) & (self.table["against"] == against)]

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        from affectlens.probing.contexts.words import swayed

        return swayed(self)

    def plot(self) -> "Figure":
        """Shift and change of contrast under each prompt, with intervals."""
        from affectlens.probing.contexts.figures import prompt_shifts

        return prompt_shifts(self)

    def __repr__(self) -> str:
        return _said(self)

    def _repr_html_(self) -> str:
        return _html(self, "Malleability", self.table.drop(columns="method"))

    def _ipython_display_(self) -> None:
        _show(self)


@dataclass(frozen=True)
class Formats:
    """The outcome of :func:`affectlens.probing.contexts.formatting.formats`.

    ``cells`` has one row a pair of formats, fitted in ``fitted`` and read in ``read``: ``auroc, low, high``; ``drop``
    (less the AUROC of the same directions in their own format) with ``drop_low, drop_high`` (simultaneous over cells);
    ``behind`` (less that of directions fitted in ``read``) with ``behind_low, behind_high`` (pointwise);
    ``correlation`` of the scores in both formats with ``correlation_low, correlation_high``; ``n``.
    """

    meta: Json
    cells: pd.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """The formats, in the order given."""
        return tuple(self.meta["formats"])

    @property
    def worst(self) -> tuple[str, str, Estimate]:
        """Where it was fitted, where it was read, and the largest drop with its simultaneous interval."""
        other = self.cells[self.cells["fitted"] != self.cells["read"]]
        row = other.iloc[int(other["drop"].argmin())]
        drop = Estimate(row["drop"], row["drop_low"], row["drop_high"], int(row["n"]), UNIT, method="sup-t over cells")
        return str(row["fitted"]), str(row["read"]), drop

    def matrix(self, column: str = "auroc") -> pd.DataFrame:
        """One column as a square: rows are where directions were fitted, columns where they read."""
        square = self.cells.pivot(index="fitted", columns="read", values=column)
        return square.loc[list(self.names), list(self.names)]

    def summary(self) -> list[str]:
        """What was found, in sentences; Markdown."""
        from affectlens.probing.contexts.words import carried

        return carried(self)

    def plot(self) -> "Figure":
        """The transfer matrix as a heat map, with its intervals."""
        from affectlens.probing.contexts.figures import transfer_map

        return transfer_map(self)

    def __repr__(self) -> str:
        return _said(self)

    def _repr_html_(self) -> str:
        return _html(self, "Formats", self.cells)

    def _ipython_display_(self) -> None:
        _show(self)


def _said(result: Result) -> str:
    from affectlens.probing.names import plain

    return "\n".join(plain(line) for line in result.summary())


def _html(result: Result, title: str, table: pd.DataFrame | None) -> str:
    from affectlens.report import markdown

    lines = "".join(f"<p>{markdown(line)}</p>" for line in result.summary())
    shown = "" if table is None else table.to_html(index=False, border=0, float_format="{:.3f}".format)
    return f"<h3>{escape(title)}</h3>{lines}{shown}"


def _show(result: Result) -> None:
    from IPython import display

    ipython: Any = display
    ipython.display(ipython.HTML(result._repr_html_()))
    ipython.display(result.plot())

"""What an audit found: one finding a property, with its figure, its bound, the worst items and the words that leak."""

from dataclasses import dataclass, field, fields, replace
from html import escape

import pandas as pd

from affectlens.errors import BatteryError
from affectlens.stats import Estimate


@dataclass(frozen=True)
class Bounds:
    """The most (or least) that each property may show. The defaults are those that our own batteries must meet.

    Raises:
        BatteryError: from :meth:`with_`, for a name that is no bound.
    """

    words: float = 0.70  # AUROC of bag-of-words readers, emotional against neutral
    function_words: float = 0.62  # AUROC
    surface: float = 0.58  # AUROC
    category: float = 0.62  # AUROC, one emotion against the rest, on emotional items and on their neutral partners
    category_gap: float = 0.05  # between these two
    overlap: float = 0.60  # Jaccard of a pair's words, at least
    length: float = 0.05  # of a pair, relative
    keyword_length: float = 0.15  # of a keyword twin
    per_pair: int = 1  # negations, absolutes, quotation marks: difference within a pair
    net: float = 0.05  # share of pairs by which a closed list leans to one side
    run: int = 6  # words in a row that two scenes may not share

    def with_(self, **values: float) -> "Bounds":
        """These bounds with some of them changed."""
        if unknown := set(values) - {f.name for f in fields(self)}:
            known = ", ".join(f.name for f in fields(self))
            raise BatteryError(f"There is no bound {sorted(unknown)[0]!r}; there are {known}.")
        return replace(self, **{k: type(getattr(self, k))(v) for k, v in values.items()})


@dataclass(frozen=True)
class Worst:
    """An item, pair or quadruple that does most harm to a property."""

    item: str  # an id, or a group's
    figure: float  # the greater the worse
    say: str  # what is wrong with it, or what to look at


@dataclass(frozen=True)
class Leak:
    """A word that stands on one side of the pairs more often than on the other."""

    word: str
    emotional: int  # pairs in which the emotional item has it more often
    neutral: int


@dataclass(frozen=True)
class Finding:
    """One row of the audit."""

    name: str  # of the property
    figure: Estimate | float | int | None
    bound: str  # as a person reads it; "reported" where nothing can fail
    passed: bool | None  # None: reported only, or not applicable
    note: str = ""
    worst: tuple[Worst, ...] = ()
    words: tuple[Leak, ...] = ()

    @property
    def verdict(self) -> str:
        """pass, FAIL, reported, or not applicable."""
        if self.passed is None:
            return "reported" if self.figure is not None else "not applicable"
        return "pass" if self.passed else "FAIL"

    def said(self) -> str:
        """The figure as text."""
        if isinstance(self.figure, float):
            return f"{self.figure:.3f}"
        return "" if self.figure is None else str(self.figure)


@dataclass(frozen=True)
class Audit:
    """All findings on one battery. Truth is :attr:`passed`; the command's exit code is 1 where it is false."""

    battery: str
    items: int
    sha256: str
    licence: str
    findings: tuple[Finding, ...]
    bounds: Bounds
    seconds: float = field(default=0.0, compare=False)

    @property
    def passed(self) -> bool:
        """Whether no property failed."""
        return all(finding.passed is not False for finding in self.findings)

    def __getitem__(self, name: str) -> Finding:
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise BatteryError(f"The audit has no property {name!r}; it has {', '.join(f.name for f in self.findings)}.")

    def frame(self) -> pd.DataFrame:
        """One row a property: property, figure, low, high, bound, verdict, note."""
        rows = []
        for f in self.findings:
            value = f.figure
            spread = (value.low, value.high) if isinstance(value, Estimate) else (float("nan"), float("nan"))
            number = value.value if isinstance(value, Estimate) else value
            shown = float("nan") if number is None else float(number)
            rows.append((f.name, shown, *spread, f.bound, f.verdict, f.note))
        return pd.DataFrame(rows, columns=["property", "figure", "low", "high", "bound", "verdict", "note"])

    def fixes(self) -> pd.DataFrame:
        """What to mend: one row an item of a failed property (property, item, figure, say), worst first."""
        rows = [(f.name, w.item, w.figure, w.say) for f in self.findings if f.passed is False for w in f.worst]
        return pd.DataFrame(rows, columns=["property", "item", "figure", "say"])

    def __repr__(self) -> str:
        lines = [f"Audit of {self.battery} ({self.items} items): {'passed' if self.passed else 'FAILED'}"]
        lines += [f"  {f.verdict:>14}  {f.name}: {f.said()} ({f.bound}) {f.note}".rstrip() for f in self.findings]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(f.verdict)}</td><td>{escape(f.name)}</td><td>{escape(f.said())}</td>"
            f"<td>{escape(f.bound)}</td><td>{escape(f.note)}</td></tr>"
            for f in self.findings
        )
        verdict = "passed" if self.passed else "<strong>failed</strong>"
        return f"<p>Audit of {escape(self.battery)} ({self.items} items): {verdict}</p><table>{rows}</table>"

"""What gates and loops read must be computed before what they act on is steered."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.sites import Site

if TYPE_CHECKING:
    from affectlens.steering.plan import Term

_MEND = "Name an earlier layer of it, as in fear@12>90, read another emotion or probe, or steer later layers."


def check_order(model: LensModel, acting: Mapping[Site, Iterable["Term"]]) -> None:
    """Raise a :class:`SteerError` if a gate or a loop can't be read in time.

    A gate is read before the site that it opens is steered; a loop before any site of the plan is, so that what it sees
    is what the words did.

    Args:
        model: that is steered.
        acting: the terms that act, by site.
    """
    for site, terms in acting.items():
        for term in terms:
            if term.gate is not None:
                _check(model, f"The gate ({term.gate.says})", term.gate.site, site)
            if term.loop is not None:
                _check(model, f"The loop ({term.loop.says})", term.loop.site, min(acting))


def _check(model: LensModel, what: str, read: Site, steered: Site) -> None:
    if read == steered and model.sites.find(steered).adds:
        raise SteerError(f"{steered} is a sum that is steered before it can be read. {what} needs an earlier site.")
    if read > steered:
        raise SteerError(f"{what} reads {read}, which is computed after {steered}, where steering begins. {_MEND}")

"""Steering that differs from row to row of a batch: one hook a site, in which each row has its own plan."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from affectlens.cursors import Cursor
from affectlens.hooks import attach
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.steering.acting import Acting
from affectlens.steering.applying import Steering
from affectlens.steering.plan import SteeringPlan, Term


class Steered:
    """A request's plan, and where in its text the running pass is."""

    def __init__(self, model: LensModel, plan: SteeringPlan, prompt: int) -> None:
        self.terms = plan.acting
        self.cursor = Cursor()
        self.acting = Acting(model, Steering(plan), self.cursor, prompt, False)
        self.readings = self.acting.readings()  # by gates
        self.vectors = {site: _sum(model, site, terms) for site, terms in self.terms.items()
                        if all(term.adds_always for term in terms)}  # fmt: skip

    def place(self, positions: Int[Tensor, " n"]) -> None:
        """Say where the next tokens are; padding is -1."""
        real = int((positions < 0).sum())
        self.cursor.positions = positions[None]
        self.cursor.past = int(positions[-1]) + 1 - len(positions) if real < len(positions) else -len(positions)


@contextmanager
def steering_rows(model: LensModel, rows: Sequence[Steered | None]) -> Iterator[None]:
    """Steer one pass of a batch, each row by its own plan; rows without one stay as they are.

    Args:
        model: that runs inside the ``with``.
        rows: one a row of the batch, placed.
    """
    if not any(rows):
        yield
        return
    with ExitStack() as handles:
        for at, row in enumerate(rows):
            for site, read in row.readings if row else ():
                attach(handles, model.sites.find(site), partial(_one_row, read, at))
        for site in sorted({site for row in rows if row for site in row.terms}):
            attach(handles, model.sites.find(site), partial(_act, model, site, rows), writing=True)
        handles.enter_context(model.edited())
        yield


def _one_row(read: Callable[[Tensor], None], at: int, value: Tensor) -> None:
    read(value[at : at + 1])


def _act(model: LensModel, site: Site, rows: Sequence[Steered | None], value: Tensor) -> Tensor:
    """The tap's value with each row's terms done: plain additions together, all else row by row."""
    mine = [row if row is not None and site in row.terms else None for row in rows]
    vectors = [row.vectors.get(site) if row else None for row in mine]
    if any(vector is not None for vector in vectors):
        part = model.sites.part(site, value)
        added = _stacked(vectors, part)
        value = model.sites.with_part(site, value, part + added)
    own = [at for at, row in enumerate(mine) if row and site not in row.vectors]
    if not own:
        return value
    value = value.clone()
    for at in own:
        row = mine[at]
        assert row is not None
        value[at : at + 1] = row.acting.act(site, row.terms[site], value[at : at + 1])
    return value


def _stacked(vectors: Sequence[Tensor | None], part: Tensor) -> Float[Tensor, "row 1 *d"]:
    added = part.new_zeros(len(vectors), 1, *part.shape[2:])
    for at, vector in enumerate(vectors):
        if vector is not None:
            added[at, 0] = vector.to(part.device, part.dtype)
    return added


def _sum(model: LensModel, site: Site, terms: tuple[Term, ...]) -> Tensor:
    whole = torch.tensor(sum(term.vector for term in terms), dtype=torch.float32)
    return whole.reshape(model.sites.shape(site)).to(model.device)

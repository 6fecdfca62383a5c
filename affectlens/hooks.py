"""Context managers that watch, record or edit sites, and always restore the model.

Only our own handles are removed, so a user's hooks stay; ours see what theirs have changed. Positions are absolute in
the sequence: with a key-value cache the chunk in hand may be one token long, and padding may be on either side.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from affectlens.attention import eager, explicit, rewriting
from affectlens.cursors import Cursor, following
from affectlens.errors import SiteError
from affectlens.model import LensModel
from affectlens.sites import Site
from affectlens.taps import Tap, first, given

Sites = str | Site | Iterable[str | Site]
See = Callable[[Site, Tensor], None]
Edit = Callable[[Tensor, Cursor], Tensor]


class NothingChanged(UserWarning):
    """An edit was in place and left every value as it was, or its site was never computed."""


class Done(Exception):
    """Raised inside a forward pass once all that is watched has been seen; never leaves :func:`watch`."""


class Recorded(Mapping[Site, Tensor]):
    """Values by site, which a text names as well: ``seen["L12.H3"]``."""

    def __init__(self) -> None:
        self.values_by_site: dict[Site, Tensor] = {}

    def __getitem__(self, name: str | Site) -> Tensor:
        site = Site.parse(name) if isinstance(name, str) else name
        if site not in self.values_by_site:
            raise SiteError(f"{site} was not recorded; there are {', '.join(map(str, self)) or 'none yet'}.")
        return self.values_by_site[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self.values_by_site)

    def __len__(self) -> int:
        return len(self.values_by_site)


@contextmanager
def watch(model: LensModel, sites: Sites, see: See, *, stop: bool = False) -> Iterator[None]:
    """Call ``see(site, value)`` with each site's value as the model runs inside the ``with``.

    Values are ``[batch, pos, d_model]``; for ``q``, ``k``, ``v`` and ``z`` ``[batch, pos, head, d_head]``, for
    ``neurons`` ``[batch, pos, d_mlp]``, for ``pattern`` ``[batch, head, query, key]``; a single head, neuron or feature
    is without its own axis. They are the model's own tensors: read them, don't write into them.

    Args:
        model: from :func:`affectlens.load_model`.
        sites: what to watch: ``resid_post``, ``L12.H3``, a :class:`Site`, or several.
        see: called once a site and forward pass.
        stop: end the forward pass, and the ``with``, as soon as every site was seen once.
    """
    wanted = [(site, model.sites.find(site)) for site in sorted(model.sites.expand(sites))]
    left = {site for site, _ in wanted}

    def report(site: Site, value: Tensor) -> None:
        see(site, model.sites.part(site, value))
        left.discard(site)
        if stop and not left:
            raise Done

    with ExitStack() as handles:
        if any(site.kind == "pattern" for site, _ in wanted):
            handles.enter_context(eager(model))
        for site, tap in wanted:
            attach(handles, tap, partial(report, site))
        try:
            yield
        except Done:
            if not stop or left:
                raise


@contextmanager
def record(model: LensModel, sites: Sites) -> Iterator["Recorded"]:
    """The sites' values, filled as the model runs inside the ``with``.

    Chunks of one cached run are joined along ``pos``; a pass that begins a sequence anew replaces what was there.

    Args:
        model: from :func:`affectlens.load_model`.
        sites: what to record: ``resid_post``, ``L12.H3``, a :class:`Site`, or several.
    """
    seen = Recorded()
    values = seen.values_by_site
    with following(model) as cursor:

        def keep(site: Site, value: Tensor) -> None:
            goes_on = site in values and cursor.past > 0
            if goes_on and site.kind == "pattern":
                raise SiteError(f"{site} of several chunks can't be joined: record one pass at a time.")
            values[site] = torch.cat((values[site], value), dim=1) if goes_on else value.clone()

        with watch(model, sites, keep):
            yield seen


@contextmanager
def edit(model: LensModel, edits: Mapping[str, Edit] | Mapping[Site, Edit], *, idle: str = "warn") -> Iterator[None]:
    """Replace the sites' values by what the edits return, while the model runs inside the ``with``.

    An edit gets the value (as :func:`watch` gives it) and a :class:`Cursor` with absolute positions, and returns a
    tensor of the same shape; it must not write into the one it was given. Weights that an edit of ``pattern`` returns
    are multiplied with the values as they are: they need not sum to one.

    Args:
        model: from :func:`affectlens.load_model`.
        edits: a function a site; a name without a layer means every layer. What an edit of ``features`` changes is
            written along the decoder's rows; what the dictionary fails to rebuild stays as it is.
        idle: what to do about edits that changed nothing: ``warn``, ``raise`` or ``ignore``.

    Raises:
        SiteError: a site that can't be edited, a result of another shape, or an idle edit if ``idle="raise"``.
    """
    if idle not in ("warn", "raise", "ignore"):
        raise SiteError(f"idle={idle!r} is not known: choose warn, raise or ignore.")
    expanded = [(site, act) for name, act in edits.items() for site in model.sites.expand(name)]
    acts = dict(expanded)
    if len(acts) < len(expanded):
        twice = sorted({str(site) for site in acts if [s for s, _ in expanded].count(site) > 1})
        raise SiteError(f"{', '.join(twice)} is named twice: give one function a site, or nest two edits.")
    _refuse(model, acts)
    unmoved = set(acts)
    with ExitStack() as handles:
        cursor = handles.enter_context(following(model))
        if any(site.kind == "pattern" for site in acts):
            handles.enter_context(explicit(model))

        def change(site: Site, old: Tensor) -> Tensor:
            part = model.sites.part(site, old)
            new = acts[site](part, cursor)
            if not isinstance(new, Tensor) or new.shape != part.shape:
                got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
                raise SiteError(f"The edit at {site} returned {got}; it must return a tensor of {tuple(part.shape)}.")
            new = new.to(part.dtype)
            if site in unmoved and not torch.equal(new, part):
                unmoved.discard(site)
            return model.sites.with_part(site, old, new)

        for site in sorted(acts):
            attach(handles, model.sites.find(site), partial(change, site), writing=True)
        handles.enter_context(model.edited())
        yield
    if unmoved and idle != "ignore":
        names = ", ".join(str(site) for site in sorted(unmoved))
        sentence = f"The edit at {names} changed nothing: the site was not computed, or every value stayed as it was."
        if idle == "raise":
            raise SiteError(sentence)
        warnings.warn(sentence, NothingChanged, stacklevel=3)


def _refuse(model: LensModel, sites: Iterable[Site]) -> None:
    """Say which of these can't be edited, and why."""
    for site in sites:
        if site.kind == "features" and model.sites.dictionaries[site.sae or ""].decode is None:
            raise SiteError(f"{site} can be watched but not edited: its dictionary was attached without decode=.")
        if site.kind == "pattern" and not model.sites.find(site).attends:
            raise SiteError(
                f"{site} can be watched but not edited: what the attention of {model.name} gives is not its weights "
                "times the values, or not through transformers' interface; edit z."
            )


def attach(handles: ExitStack, tap: Tap, act: Callable[[Tensor], Any], *, writing: bool = False) -> None:
    """Hook one tap, until ``handles`` close.

    Args:
        handles: what takes the hook away again.
        tap: from ``model.sites.find(site)``.
        act: gets the tap's whole value, of which ``model.sites.part(site, value)`` is the site.
        writing: what ``act`` returns takes the value's place; ``model.sites.with_part`` makes it. A pattern can be
            written to inside :func:`affectlens.attention.explicit` only.

    Raises:
        SiteError: writing to a pattern outside of that, or where weights are not what attention computes with.
    """
    if writing and tap.adds and tap.base:
        _attach_between(handles, tap.base, tap.adds, act)
        return
    if writing and tap.side == "weights":
        if not tap.attends:
            raise SiteError("This attention's weights can be watched but not edited; edit z.")
        handles.callback(rewriting(tap.attends, act))
        return

    def going_in(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = act(given(args, kwargs))
        if not writing:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    def coming_out(_module: Any, _args: Any, output: Any) -> Any:
        if tap.side == "weights":
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if not isinstance(weights, Tensor):
                raise SiteError("This attention does not report its weights, even in its eager form.")
            act(weights)
            return None
        new = act(first(output))
        return _instead(output, new) if writing else None

    if tap.side == "in":
        handles.callback(tap.module.register_forward_pre_hook(going_in, with_kwargs=True).remove)
    else:
        handles.callback(tap.module.register_forward_hook(coming_out).remove)


def _attach_between(handles: ExitStack, base: nn.Module, adds: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
    """Edit a sum that is nobody's output: the second summand becomes the edited sum less the first."""
    entered: list[Tensor] = []

    def entering(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[:] = [given(args, kwargs)]

    def coming_out(_module: Any, _args: Any, output: Any) -> Any:
        value = first(output)
        x = entered[0].to(value.device)
        return _instead(output, act(value + x) - x)

    handles.callback(base.register_forward_pre_hook(entering, with_kwargs=True).remove)
    handles.callback(adds.register_forward_hook(coming_out).remove)


def _instead(output: Any, new: Tensor) -> Any:
    """A module's output with other hidden states."""
    return type(output)((new, *output[1:])) if isinstance(output, tuple | list) else new

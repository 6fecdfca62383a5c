"""Distributed alignment search: the subspace whose interchange moves a metric as the whole difference of texts does.

Geiger et al. (2023), arXiv:2303.02536. The basis is the Q of a QR decomposition of free parameters, so it is
orthonormal at every step; Adam lowers the squared distance of the patched run's metric from the source's, over the mean
squared gap of the training pairs. Subspaces of several sizes are rows of one batch, and so is each one's control: the
same search with the gap's sign turned in half of the pairs, chosen at random, which leaves no concept to be found.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from affectlens.errors import PatchError
from affectlens.patching.subspaces.interchange import Exchange, within
from affectlens.progress import tracked

Basis = Float[Tensor, "d_model k"]


def search(
    pairs: Sequence[Exchange], sizes: Sequence[int], *, epochs: int = 4, batch: int = 2, rate: float = 0.2,
    turned: bool = True, seed: int = 0, progress: bool | None = None, what: str = "searching",
) -> tuple[list[Basis], list[Basis]]:  # fmt: skip
    """The bases found for each size, and those of the control with random signs.

    Args:
        pairs: what is learnt from.
        sizes: how many dimensions each subspace has.
        epochs: how often each pair is seen.
        batch: pairs a step.
        rate: how far the first steps go, in lengths of a basis vector; it falls to zero on a line.
        turned: search for the control too.
        seed: of the first bases, the order of the pairs and the control's signs.
        progress: show a bar.
        what: its name.

    Raises:
        PatchError: pairs without any gap, or whose metric does not depend on the site.
    """
    scale = float(np.mean([(one.aim - one.start) ** 2 for one in pairs]))
    if not scale > 0:
        raise PatchError("The metric is the same in both texts of every pair: there is no gap to move it across.")
    rng, d = np.random.default_rng(seed), pairs[0].here.shape[1]
    wanted = [*sizes, *(sizes if turned else ())]
    starts = [torch.from_numpy(np.linalg.qr(rng.normal(size=(d, k)))[0]).to(pairs[0].here) for k in wanted]
    signs = np.ones((len(pairs), len(wanted)))
    signs[rng.permutation(len(pairs))[: len(pairs) // 2], len(sizes) :] = -1.0
    ends = np.array([[one.start, one.aim] for one in pairs])
    aims = torch.from_numpy(ends[:, :1] + signs * (ends[:, 1:] - ends[:, :1])).to(pairs[0].here.device)
    steps = [order[i : i + batch] for order in (rng.permutation(len(pairs)) for _ in range(epochs))
             for i in range(0, len(pairs), batch)]  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():
        free = [one.clone().requires_grad_() for one in starts]
        adam = torch.optim.Adam(free, lr=rate / d**0.5)
        fall = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / len(steps))
        for rows in tracked(steps, what, show=progress):
            adam.zero_grad()
            for row in rows:
                _descend(pairs[row], free, aims[row], scale * len(rows))
            adam.step()
            fall.step()
    bases = [torch.linalg.qr(one.detach()).Q for one in free]
    return bases[: len(sizes)], bases[len(sizes) :]


def _descend(pair: Exchange, free: Sequence[Tensor], aims: Float[Tensor, " row"], scale: float) -> None:
    """Add one pair's part to the gradients."""
    values = pair.values([within(torch.linalg.qr(one).Q) for one in free])
    if not values.requires_grad:
        raise PatchError(f"{pair.job.metrics[0].name!r} does not depend on {pair.site}: choose a lower layer.")
    torch.autograd.backward(((values - aims) ** 2 / scale).sum(), inputs=list(free))

"""Keys and values of requests that come and go, one below the other, all ending at the same column.

Rows are padded on the left, as batches of ``generate`` are, so every family's own masks and positions hold. A request
that joins is written in from the last column leftwards, and moves the others only if it is longer than all of them; one
that leaves has its row taken by the last.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_MORE = 64  # columns of room beyond what is needed


class Roomy(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values, with room for more rows and columns; ``keys`` and ``values`` are views of it."""

    keys: Any
    values: Any

    def __init__(self, **_kwargs: Any) -> None:
        super().__init__()
        self.rooms: tuple[Tensor, ...] = ()  # of keys and of values, [row, head, column, d]
        self.rows = self.width = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the next columns of every row, and give all columns; called by the model's attention."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.rows = key_states.shape[0]
        if key_states.shape[0] != self.rows:  # a single row would be spread over all
            raise RuntimeError(f"{key_states.shape[0]} rows came for the {self.rows} of the cache.")
        new = (key_states, value_states)
        wide = self.width + key_states.shape[2]
        self.reserve(self.rows, wide, new)
        for room, states in zip(self.rooms, new, strict=True):
            room[: self.rows, :, self.width : wide] = states
        self.show(self.rows, wide)
        return self.keys, self.values

    def reserve(self, rows: int, width: int, like: tuple[Tensor, ...]) -> None:
        """Make room for so many rows and columns.

        Args:
            rows: of all requests.
            width: their columns.
            like: keys and values, for heads, sizes and dtype.
        """
        if self.rooms and rows <= self.rooms[0].shape[0] and width <= self.rooms[0].shape[2]:
            return
        if self.rooms and rows > (had := self.rooms[0].shape[0]):
            rows = max(rows, 2 * had)
        old, self.rooms = self.rooms, tuple(
            one.new_zeros(rows, one.shape[1], width + _MORE, one.shape[3]) for one in like
        )  # fmt: skip
        for was, now in zip(old, self.rooms, strict=False):
            now[: self.rows, :, : self.width] = was[: self.rows, :, : self.width]

    def show(self, rows: int, width: int) -> None:
        """Let ``keys`` and ``values`` be the first ``rows`` rows and ``width`` columns.

        Args:
            rows: that are in use.
            width: that are written.
        """
        self.rows, self.width = rows, width
        self.keys, self.values = (room[:rows, :, :width] for room in self.rooms)

    def shift(self, by: int) -> None:
        """Move all columns to the right, or with a negative number to the left, over padding.

        Args:
            by: columns.
        """
        kept = [one[:, :, max(-by, 0) :].clone() for one in (self.keys, self.values)]
        self.reserve(self.rows, self.width + by, self.rooms)
        for room, columns in zip(self.rooms, kept, strict=True):
            room[: self.rows, :, max(by, 0) : self.width + by] = columns
            room[: self.rows, :, : max(by, 0)] = 0
        self.show(self.rows, self.width + by)

    def join(self, other: "Roomy") -> None:
        """Take another's rows below these, at the right; it is no wider.

        Args:
            other: of the same layer.
        """
        self.reserve(self.rows + other.rows, self.width, self.rooms)
        below = slice(self.rows, self.rows + other.rows)
        for room, states in zip(self.rooms, (other.keys, other.values), strict=True):
            room[below, :, : self.width - other.width] = 0
            room[below, :, self.width - other.width : self.width] = states
        self.show(self.rows + other.rows, self.width)

    def drop(self, row: int) -> None:
        """Take the last row's place away and put it where ``row`` was.

        Args:
            row: that leaves.
        """
        for room in self.rooms:
            room[row] = room[self.rows - 1]
        self.show(self.rows - 1, self.width)


class Storage:
    """The cache of a batch, and which of its columns are real."""

    def __init__(self) -> None:
        self.cache: Any = Cache(layer_class_to_replicate=Roomy)
        self.mask: Int[Tensor, "row column"] = torch.zeros(0, 0, dtype=torch.long)

    @property
    def width(self) -> int:
        """Its columns, padding included."""
        return int(self.mask.shape[1])

    def positions(self, n: int) -> Int[Tensor, "row n"]:
        """Where the last ``n`` columns are in their own texts; -1 at padding."""
        return ((self.mask.cumsum(1) * self.mask) - 1)[:, -n:]

    def join(self, other: "Storage") -> None:
        """Take another batch's rows below these; it is empty afterwards.

        Args:
            other: of the same model.
        """
        if not len(self.mask):
            self.cache, self.mask = other.cache, other.mask
            return
        if (more := other.width - self.width) > 0:
            self._shift(more)
        for mine, others in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.join(others)
        padding = torch.zeros(len(other.mask), self.width - other.width, dtype=torch.long)
        self.mask = torch.cat((self.mask, torch.cat((padding, other.mask), dim=1)))

    def drop(self, row: int) -> None:
        """Forget a row; the last one takes its place. Columns that nobody needs go when they are many.

        Args:
            row: that leaves.
        """
        self.mask[row] = self.mask[-1]
        self.mask = self.mask[:-1].clone()
        if not len(self.mask):
            self.__init__()  # type: ignore[misc]
            return
        for layer in self.cache.layers:
            layer.drop(row)
        if self._unused > max(_MORE, self.width // 4):
            self._shift(-self._unused)

    def expect_room(self, n: int, n_ctx: int) -> None:
        """Move rows to the left where padding alone makes the batch too wide for the model's tables.

        Args:
            n: columns that come next.
            n_ctx: tokens that the model can take; no row has more.
        """
        if self.width + n > n_ctx and self._unused:
            self._shift(-self._unused)

    @property
    def _unused(self) -> int:
        return int((self.mask.cumsum(1) == 0).all(0).sum())

    def _shift(self, by: int) -> None:
        for layer in self.cache.layers:
            layer.shift(by)
        padding = torch.zeros(len(self.mask), max(by, 0), dtype=torch.long)
        self.mask = torch.cat((padding, self.mask[:, max(-by, 0) :]), dim=1)


def last_logits(model: Any, storage: Storage, ids: Int[Tensor, "row n"], accepts: set[str]) -> Float[Tensor, "row v"]:
    """Run the next columns, whose mask is in the storage already, and give the logits after the last.

    Args:
        model: a :class:`LensModel`.
        storage: of the rows; the model writes keys and values into it.
        ids: the tokens of the next columns.
        accepts: the names that the model's forward takes.
    """
    given: dict[str, Any] = {}
    if "position_ids" in accepts:
        given["position_ids"] = storage.positions(ids.shape[1]).clamp(min=0).to(model.device)
    if "logits_to_keep" in accepts:
        given["logits_to_keep"] = 1
    out = model.hf(
        input_ids=ids.to(model.device), attention_mask=storage.mask.to(model.device), past_key_values=storage.cache,
        use_cache=True, **given,
    )  # fmt: skip
    return out.logits[:, -1]

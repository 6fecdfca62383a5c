"""Context managers that watch or edit a model and always restore it. Only our own handles are removed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Watch = Callable[[int, Tensor], None]


def hidden(output: Any) -> Tensor:
    """The hidden states in a block's output, which some families wrap in a tuple."""
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def watch(blocks: Iterable[nn.Module], see: Watch) -> Iterator[None]:
    """Call ``see(layer, hidden)`` with each block's output, ``[batch, pos, d_model]``, during the ``with``."""
    with ExitStack() as handles:
        for layer, block in enumerate(blocks):

            def hook(_module: nn.Module, _args: Any, output: Any, layer: int = layer) -> None:
                see(layer, hidden(output))

            handles.callback(block.register_forward_hook(hook).remove)
        yield


@contextmanager
def record(blocks: Iterable[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """The blocks' outputs by layer, filled as the model runs inside the ``with``."""
    seen: dict[int, Tensor] = {}
    with watch(blocks, seen.__setitem__):
        yield seen

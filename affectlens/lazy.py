"""Names that load on first use (PEP 562), so that importing a package costs nothing.

No module may have the name of a function that its package offers: importing it would put the module in the
function's place.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` for ``package``.

    Args:
        package: its dotted name.
        homes: public name to the module that defines it; an empty module means that the name is itself a module.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it offers {', '.join(sorted(homes))}")
        module = importlib.import_module(f"{package}.{homes[name] or name}")
        value = getattr(module, name) if homes[name] else module
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted(homes)

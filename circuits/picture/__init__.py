"""A picture of circuits that one can walk through, in one file that works offline: :func:`write_picture`."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.circuits.picture.data import Detail
    from affectlens.circuits.picture.details import details_of
    from affectlens.circuits.picture.page import Frame, fragment, show, write_picture
    from affectlens.circuits.picture.static import png, svg

__all__ = ["Detail", "Frame", "details_of", "fragment", "png", "show", "svg", "write_picture"]
_HOMES = {"Detail": "data", "details_of": "details", "Frame": "page", "fragment": "page", "show": "page",
          "write_picture": "page", "png": "static", "svg": "static"}  # fmt: skip
__getattr__, __dir__ = lazily(__name__, _HOMES)

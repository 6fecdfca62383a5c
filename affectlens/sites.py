"""Addresses of activations: ``Site(12, "resid_post")``, in text ``L12.resid_post``.

This first cut knows the residual stream after each block; other sites join this table.
"""

import re
from dataclasses import dataclass

from affectlens.errors import SiteError

KINDS = ("resid_post",)
_TEXT = re.compile(r"L(\d+)\.(\w+)")


@dataclass(frozen=True, order=True)
class Site:
    """One activation of one layer; sorts by layer, prints and parses as ``L12.resid_post``.

    >>> Site.parse("L12.resid_post")
    Site(layer=12, kind='resid_post')
    >>> str(Site.parse("L12.resid_post"))
    'L12.resid_post'
    """

    layer: int
    kind: str = "resid_post"

    def __post_init__(self) -> None:
        check_kind(self.kind)

    def __str__(self) -> str:
        return f"L{self.layer}.{self.kind}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """The site that ``text`` names.

        Raises:
            SiteError: if the text has another form or names an unknown kind.
        """
        match = _TEXT.fullmatch(text)
        if not match:
            raise SiteError(f"{text!r} is not a site: write it as L<layer>.<kind>, for example L12.resid_post.")
        return cls(int(match[1]), match[2])


def check_kind(kind: str) -> str:
    """``kind`` if it exists, else a :class:`SiteError` that lists what does."""
    if kind not in KINDS:
        raise SiteError(f"There is no site {kind!r}; this version captures {', '.join(KINDS)}.")
    return kind

"""``affectlens serve``: an OpenAI-compatible server whose requests carry the emotion that they want.

Requests with different doses share every forward pass. In code, ``with served(model) as url:`` serves until the block
ends; :func:`build_app` is the ASGI application itself.
"""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.steering.serving.app import build_app
    from affectlens.steering.serving.running import served
    from affectlens.steering.serving.service import Service
    from affectlens.steering.serving.settings import Settings

__all__ = ["Service", "Settings", "build_app", "served"]
_FROM = {"Service": "service", "Settings": "settings", "build_app": "app", "served": "running"}
__getattr__, __dir__ = lazily(__name__, _FROM)

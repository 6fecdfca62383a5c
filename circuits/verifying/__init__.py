"""Does a circuit do what the model does, and do others do it as well? :func:`verify` asks on scenes of its own."""

from typing import TYPE_CHECKING

from affectlens.lazy import lazily

if TYPE_CHECKING:
    from affectlens.circuits.verifying.plan import Amounts, cost
    from affectlens.circuits.verifying.result import Verification
    from affectlens.circuits.verifying.study import verify
    from affectlens.circuits.verifying.tools import Tools

__all__ = ["Amounts", "Tools", "Verification", "cost", "verify"]
__getattr__, __dir__ = lazily(
    __name__, {"Amounts": "plan", "Tools": "tools", "Verification": "result", "cost": "plan", "verify": "study"}
)

"""The directions that ship with AffectLens, and how to find a set."""

from pathlib import Path

from affectlens.errors import SteerError
from affectlens.model import LensModel
from affectlens.steering.directions import Directions

DATA = Path(__file__).parent / "data"


def bundled() -> tuple[str, ...]:
    """The models that directions are bundled for."""
    return tuple(sorted(path.stem.removeprefix("directions_") for path in DATA.glob("directions_*.safetensors")))


def load_directions(name: str | Path | None = None, model: LensModel | None = None) -> Directions:
    """A set of directions: a file, or the one bundled for a model.

    Args:
        name: a file, or a catalogue name such as ``smollm2-135m``; None for that of ``model``.
        model: refuse directions of another model.

    Raises:
        SteerError: no such file or set, or directions of another model.
    """
    if name is None and model is None:
        raise SteerError(f"Name a file of directions, or a model that has them bundled: {', '.join(bundled())}.")
    asked = str(name if name is not None else model.name if model else "")
    path = DATA / f"directions_{asked}.safetensors" if asked in bundled() else Path(asked).expanduser()
    if not path.is_file():
        raise SteerError(
            f"There are no directions for {asked}: extract them with affectlens directions extract {asked}, and give "
            f"the file with --directions. Bundled are those of {', '.join(bundled()) or 'no model'}."
            if name is None
            else f"There is no file of directions {asked}, and none is bundled under that name "
            f"({', '.join(bundled()) or 'nothing is bundled'})."
        )
    return Directions.load(path, model)

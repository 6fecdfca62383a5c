"""The tree is what it says: packages, links, one-way imports, lazy import, docstrings, the wheel."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("probing", "patching", "steering", "circuits", "stimuli")
ORDER = {"core": 0, "stimuli": 1, "probing": 2, "patching": 3, "steering": 3, "circuits": 4}
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_every_package_is_listed_with_its_folder() -> None:
    listed = set(CONFIG["tool"]["setuptools"]["packages"])
    found = {"affectlens"} | {
        ".".join(["affectlens", *path.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for path in sources(folder)
        if path.name == "__init__.py"
    }
    assert listed == found
    assert set(CONFIG["tool"]["setuptools"]["package-dir"]) == listed


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_to_the_folders(folder: str) -> None:
    link = ROOT / "affectlens" / folder
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{folder}"
    assert link.resolve() == ROOT / folder


def imported(path: Path) -> set[str]:
    """The affectlens sub-packages that a file imports, ``core`` for the core."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "affectlens":
            names += [f"affectlens.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "affectlens" and len(parts) > 1:
                found.add(parts[1] if parts[1] in FOLDERS else "core")
    return found


COMPOSES = {"affectlens/cli.py", "affectlens/__init__.py", "affectlens/testing.py"}  # they put the parts together


@pytest.mark.parametrize("folder", ["affectlens", *FOLDERS])
def test_imports_point_one_way(folder: str) -> None:
    home = "core" if folder == "affectlens" else folder
    files = sorted((ROOT / folder).glob("*.py")) if home == "core" else sources(folder)
    for path in files:
        if str(path.relative_to(ROOT)) in COMPOSES:
            continue
        wrong = [name for name in imported(path) if name != home and ORDER[name] >= ORDER[home]]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["affectlens", "affectlens.cli"])
def test_import_is_light(module: str) -> None:
    heavy = ("torch", "transformers", "sklearn", "pandas", "numpy", "plotly", "scipy")
    assert fresh(f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_every_public_name_loads_and_unknown_ones_are_explained() -> None:
    import affectlens as al

    for name in al.__all__:
        assert getattr(al, name) is not None
    assert al.capture is importlib.import_module("affectlens.capturing").capture
    with pytest.raises(AttributeError, match="no 'probe'; it offers"):
        _ = al.probe


def test_no_module_hides_a_public_name() -> None:
    for folder in ("affectlens", *FOLDERS):
        package = importlib.import_module("affectlens" if folder == "affectlens" else f"affectlens.{folder}")
        for name in getattr(package, "__all__", ()):
            there = (ROOT / folder / f"{name}.py").exists()
            meant = folder == "affectlens" and inspect.ismodule(getattr(package, name))  # elsewhere it only came first
            hides = there and not meant
            assert not hides, f"{folder}/{name}.py hides {package.__name__}.{name} once it is imported"


def public_functions() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for folder in ("affectlens", *FOLDERS):
        for path in sorted((ROOT / folder).glob("*.py")):
            name = path.stem if folder == "affectlens" else f"{folder}.{path.stem}"
            if path.stem in ("__init__", "cli") or path.stem in FOLDERS:
                continue
            module = importlib.import_module(f"affectlens.{name}")
            for key, value in vars(module).items():
                if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_"):
                    found.append((f"{module.__name__}.{key}", value))
    return found


@pytest.mark.parametrize(("name", "function"), public_functions())
def test_docstrings_name_the_arguments_that_exist(name: str, function: object) -> None:
    text = inspect.getdoc(function)
    assert text, f"{name} has no docstring"
    if match := re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", text, re.S | re.M):
        said = re.findall(r"^ {4}(\w+):", match[1], re.M)
        assert callable(function)
        assert said == list(inspect.signature(function).parameters), name


def test_no_module_is_long() -> None:
    for folder in ("affectlens", *FOLDERS):
        for path in sorted((ROOT / folder).glob("*.py")):
            assert len(path.read_text().splitlines()) <= 250, path


def test_the_wheel_imports_from_another_folder(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    modules = [str(p.relative_to(ROOT)) for folder in FOLDERS for p in sources(folder)]
    assert {f"affectlens/{m}" for m in modules} <= names
    assert {
        "affectlens/py.typed",
        "affectlens/templates/report.html.j2",
        "affectlens/stimuli/data/crossed.jsonl",
    } <= names
    assert not any(name.startswith(("tests", "probing", "stimuli")) for name in names)
    every = [
        m.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for m in sorted(names) if m.endswith(".py")
    ]
    every = [m for m in every if m.startswith("affectlens")]
    code = (
        f"import importlib, sys; [importlib.import_module(m) for m in {every}]; import affectlens as al;"
        "print(al.__file__, len(al.load_battery('starter')))"
    )
    path = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r});"
    done = subprocess.run([sys.executable, "-c", path + code], cwd=tmp_path, capture_output=True, text=True, check=True)
    place, items = done.stdout.split()
    assert place.startswith(str(tmp_path))
    assert items == "160"

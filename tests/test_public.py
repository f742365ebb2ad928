from __future__ import annotations

import ast
import importlib.metadata
import inspect
import tomllib
from pathlib import Path

import pytest

import reap_onnx
from reap_onnx import errors

PACKAGE = Path(reap_onnx.__file__).parent
ROOT = Path(__file__).parent.parent
BANNED = {"onnxruntime": "runtime", "dask": "runtime", "distributed": "runtime", "onnx_graphsurgeon": "model"}


def test_the_public_surface_is_what_it_says() -> None:
    assert reap_onnx.__all__ == sorted(set(reap_onnx.__all__), key=lambda name: (not name.isupper(), name))
    assert {"prune", "calibrate", "sweep", "apply", "compare", "inspect", "demo"} <= set(reap_onnx.__all__)
    assert {name for name, _ in inspect.getmembers(errors, inspect.isclass)} <= set(reap_onnx.__all__)
    for name in reap_onnx.__all__:
        assert getattr(reap_onnx, name) is not None


@pytest.mark.parametrize("name", ["prune", "calibrate", "sweep", "apply", "compare", "inspect", "demo"])
def test_verbs_are_documented_functions_with_typed_arguments(name: str) -> None:
    verb = getattr(reap_onnx, name)
    assert inspect.isfunction(verb)
    assert verb.__doc__
    signature = inspect.signature(verb)
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation is not signature.empty


def test_types_come_with_the_package() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_one_version() -> None:
    assert reap_onnx.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    installed = [d.version for d in importlib.metadata.distributions() if d.metadata["Name"] == "reap-onnx"]
    assert set(installed) <= {reap_onnx.__version__}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(("module", "room"), BANNED.items())
def test_rooms_keep_their_libraries_to_themselves(module: str, room: str) -> None:
    users = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if module in imports(path)}
    assert users == {room}


def test_the_lint_bans_what_the_rooms_keep() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert ruff["flake8-tidy-imports"]["banned-api"].keys() == BANNED.keys()
    assert "TID" in ruff["select"]


def test_nothing_is_pickled_or_evaluated() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert not imports(path) & {"pickle", "dill", "joblib", "torch"}, path
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("eval", "exec")], path

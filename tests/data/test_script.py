from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from reap_onnx.data import InputSpec, load_dataset
from reap_onnx.data.script import split_script
from reap_onnx.errors import DataError

SPECS = (InputSpec("x", np.dtype(np.float32), (None, 2)),)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(dedent(text))
    return path


def fails(said: str, source: object) -> DataError:
    before = list(sys.path)
    with pytest.raises(DataError, match=said) as caught:
        load_dataset(source, SPECS)
    assert "mine.py" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert sys.path == before
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "function"),
    [
        ("a.py", "a.py", "load_data"),
        ("dir/a.py:calib", "dir/a.py", "calib"),
        ("C:\\dir\\a.py", "C:\\dir\\a.py", "load_data"),
        ("C:\\dir\\a.py:calib", "C:\\dir\\a.py", "calib"),
    ],
)
def test_scripts_are_taken_apart(text: str, path: str, function: str) -> None:
    assert split_script(text) == (Path(path), function)


@pytest.mark.parametrize("text", ["a.npz", "C:\\a.npz", "a.py:", "a.py:not a name", "a.pyc", "random"])
def test_other_texts_are_no_scripts(text: str) -> None:
    assert split_script(text) is None


def test_whatever_the_function_returns_is_the_source(tmp_path: Path) -> None:
    np.save(tmp_path / "saved.npy", np.full((2, 2), 9, np.float32))
    (tmp_path / "beside.py").write_text("ROWS = 3\n")
    path = write(
        tmp_path,
        """
        import numpy as np
        from pathlib import Path
        import beside

        START = 5

        def load_data():
            for number in range(beside.ROWS):
                yield {"x": np.full((1, 2), START + number, np.float32), "labels": np.array([number])}

        def saved(name="saved.npy"):
            return Path(__file__).parent / name
        """,
    )
    result = load_dataset(path, SPECS)
    assert result.inputs["x"][:, 0].tolist() == [5, 6, 7]
    assert result.labels.tolist() == [0, 1, 2]
    assert result.description == f"{path}: 3 samples"
    assert load_dataset(f"{path}:saved", SPECS).inputs["x"].tolist() == [[9, 9], [9, 9]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def load_data():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import no_such_module_here\n", "line 1: ModuleNotFoundError"),
        ("x = 1\ndef load_data(:\n", "line 2: SyntaxError"),
        ("import sys\nsys.exit('stop')\n", "line 2: SystemExit: stop"),
        ("def load_data():\n    yield {}\n    raise ValueError('two\\nlines')\n", "line 3: ValueError: two lines"),
        ("def load_data(path):\n    return path\n", "without arguments"),
        ("load_data = 3\n", "no function 'load_data'"),
        ("", "no function 'load_data'"),
        ("def load_data():\n    return None\n", "a NoneType holds no samples"),
        ("def load_data():\n    return [[1, 2]]\n", "batch 0 is a list"),
    ],
)
def test_errors_in_a_script_name_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    fails(said, path)


def test_the_last_line_of_the_script_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "import numpy as np\n\ndef inner():\n    return np.zeros(3).reshape(2, 2)\n\nload_data = inner\n",
    )
    fails("line 4: ValueError: cannot reshape", path)


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "def load_data():\n    return 1\n")
    assert ":FUNCTION" in fails("no function 'calib'", f"{path}:calib").hint


def test_the_main_block_is_not_run(tmp_path: Path) -> None:
    text = "def load_data():\n    return [[0.0, 1.0]]\n\nif __name__ == '__main__':\n    raise SystemExit(9)\n"
    fails("batch 0 is a list", write(tmp_path, text))

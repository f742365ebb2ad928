from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from nets import residual_net
from reap_onnx.errors import CheckError, OutputError
from reap_onnx.model.save import check_output, data_file, write_model, write_text


def refuse(error: BaseException) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        assert path.stat().st_size > 0  # it is there to be checked, under another name
        raise error

    return check


def accept(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [CheckError("wrong"), KeyboardInterrupt(), MemoryError()])
def test_what_the_check_raises_leaves_nothing(tmp_path: Path, external: bool, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_model(residual_net(), tmp_path / "out.onnx", external=external, check=refuse(error))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_text("older")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OutputError, match=r"out\.onnx: cannot be written: No space left on device"):
        write_model(residual_net(), tmp_path / "out.onnx", external=False, check=refuse(full))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.onnx", "older")]


@pytest.mark.parametrize("external", [False, True])
def test_a_written_model_is_the_model(tmp_path: Path, external: bool) -> None:
    model = residual_net()
    write_model(model, tmp_path / "out.onnx", external=external, check=accept)
    names = {"out.onnx", "out.onnx.data"} if external else {"out.onnx"}
    assert {path.name for path in tmp_path.iterdir()} == names
    loaded = onnx.load(tmp_path / "out.onnx")
    assert {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in loaded.graph.initializer} == {
        t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer
    }
    assert model == residual_net()
    assert (tmp_path / "out.onnx").stat().st_mode & 0o444 == 0o444


def test_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("older and longer")
    write_text(tmp_path / "plan.json", "neü")
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == "neü"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_new_name_in_a_folder_is_fine(tmp_path: Path) -> None:
    check_output(tmp_path / "out.onnx", [tmp_path / "in.onnx"], force=False)
    assert list(tmp_path.iterdir()) == []
    assert data_file(tmp_path / "out.onnx") == tmp_path / "out.onnx.data"

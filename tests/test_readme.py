from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from reap_onnx.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
PAGES += sorted((ROOT / "reap_onnx").glob("*/README.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = "python3 -m venv .venv && .venv/bin/pip install"


def blocks(text: str) -> list[str]:
    """Lines of all unlabelled code blocks."""
    return [line for block in re.findall(r"^```\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]


def test_the_first_line_of_text_says_what_it_is() -> None:
    title, first = [line for line in README.splitlines() if line][:2]
    assert title == "# reap-onnx"
    assert first.startswith("Channel pruning for ONNX models")


def test_two_commands_set_up_and_run_and_test() -> None:
    commands = [line for line in blocks(README) if "venv" in line]
    assert len(commands) == 2
    run, tests = commands
    assert run.startswith(f"{SETUP} . && .venv/bin/reap-onnx demo ")
    assert tests == f'{SETUP} -e ".[test]" && .venv/bin/python -m pytest'


def test_ci_runs_the_very_test_command() -> None:
    tests = next(line for line in blocks(README) if "pytest" in line)
    assert f"tests='{tests}'" in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def flags_of(verb: str) -> set[str]:
    command = typer.main.get_command(app).commands[verb]
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_flags_that_they_are_given(page: Path) -> None:
    for line in blocks(page.read_text(encoding="utf-8")):
        match = re.search(r"(?:^|/|\s)reap-onnx ([a-z]+)(.*)", line)
        if match:
            asked = set(re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", match[2]))
            assert asked <= flags_of(match[1]), line


def test_every_flag_in_the_prose_exists() -> None:
    known = set().union(*map(flags_of, ("inspect", "prune", "calibrate", "sweep", "apply", "compare", "demo")))
    known |= {"--onnxrt", "--save-inputs", "--save-outputs", "--load-inputs", "--load-outputs", "--validate"}
    known |= {"--check-error-stat", "--rtol", "--help", "--version"}
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*)", README)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            assert place.exists(), target
            if anchor:
                assert anchor in anchors(place), target


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_python_example_is_the_api() -> None:
    example = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)[0]
    compile(example, "README.md", "exec")
    names = re.findall(r"from reap_onnx import (.*)", example)[0].split(", ")
    import reap_onnx

    assert set(names) <= set(reap_onnx.__all__)

"""House rules that a machine can hold: style, types, one-way imports, and a README that tells the truth."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("features", "models", "flows", "dashboards", "vigie")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
@pytest.mark.timeout(600)
def test_tools_are_content(command: list[str]) -> None:
    tool = Path(sys.executable).with_name(command[0])
    result = subprocess.run([str(tool), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def modules() -> list[str]:
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]


@pytest.mark.parametrize("name", modules())
def test_what_a_module_promises_it_has(name: str) -> None:
    module = importlib.import_module(name)
    for promised in getattr(module, "__all__", ()):
        assert hasattr(module, promised), promised


def test_every_relative_link_of_the_documents_resolves() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readme_has_no_place_left_to_fill() -> None:
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"\b(?:LIFT|BOILER|FIGURES|TODO|XXX)", text) == []


def test_the_readme_names_only_commands_and_targets_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"make ([a-z]+)", text):
        assert target in targets
    source = (ROOT / "vigie/command.py").read_text()
    for command in re.findall(r"\$ vigie ([a-z]+)", text):
        assert f'"{command}"' in source


def test_lock_files_pin_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    for dependency in project["dependencies"]:
        assert re.split(r"[<>=]", dependency)[0] in locked
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert "http" not in (ROOT / name).read_text(), "a lock file names versions and hashes, no addresses"

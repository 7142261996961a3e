"""What an installation takes: wheels alone, on every platform and Python; run by itself, prints a table."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin")
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def resolve(python: str, platform: str) -> tuple[int, str]:
    """(packages, "") of what `make install` takes there, or (0, reason) where it would build one of them."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv")
    options = ["--only-binary", ":all:", "--python-version", python, "--python-platform", platform]
    extras = ["--extra", "pipeline", "--extra", "trainer", "--extra", "dev"]
    (alone,) = re.findall(r"--no-deps '(.+)'", (ROOT / "Makefile").read_text("utf-8"))
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # torch's
    count = 0
    for words in (["-c", "requirements.lock", *extras, "pyproject.toml"], ["--no-deps", "-"]):
        command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", *options, *words]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, input=alone, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return 0, done.stderr
        count += done.stdout.count("==")
    return count, ""


@pytest.mark.long
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_wheels_alone(python: str, platform: str) -> None:
    count, reason = resolve(python, platform)
    assert count > 100, reason


def test_the_lock_names_no_place() -> None:
    assert not re.search(r"://|^-|@", LOCK, re.MULTILINE)


def test_corrected_dependencies_are_those_of_the_locked_versions() -> None:
    """uv takes them for one version only: after an update they must be read again."""
    for entry in SETTINGS["tool"]["uv"]["dependency-metadata"]:
        assert f"{entry['name']}=={entry['version']}" in LOCK


def test_container_runs_the_command_without_root() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    steps = [line for line in lines if re.match(r"[A-Z]+ ", line)]
    assert steps[-1] == 'ENTRYPOINT ["pretrain"]'
    assert "USER 1000:1000" in steps
    copied = [name for step in steps if step.startswith("COPY ") for name in step.split()[1:-1] if name[:2] != "--"]
    assert all((ROOT / name).exists() for name in copied), copied


def main() -> int:
    failures = []
    print(f"packages, all from wheels\n{'Python':8}" + "".join(f"{platform:>28}" for platform in PLATFORMS))
    for python in PYTHONS:
        cells = [resolve(python, platform) for platform in PLATFORMS]
        print(f"{python:8}" + "".join(f"{count or 'no':>28}" for count, _ in cells), flush=True)
        failures += [f"{python} {platform}: {why}" for platform, (_, why) in zip(PLATFORMS, cells, strict=True) if why]
    print(*failures, sep="\n", end="")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

"""The wheel, installed into a clean environment, works away from home: in a folder whose names are like ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadtests.results.exit_codes import EXIT_CONFIGURATION, EXIT_INVALID, EXIT_OK

ROOT = Path(__file__).parents[1]
PACKAGES = ("relay", "loadtests", "benchmarks", "dashboards")
NAMES = (*PACKAGES, "tests")
DECOY = "raise SystemExit('a folder of the user was imported instead of ours')\n"
COMMAND_S_MAX = 240
Done = dict[str, subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def relaymark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The installed command. The wheel is built from a copy: what earlier builds left would go into it too."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "relaymark.py", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(source),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    uv = str(Path(sys.executable).with_name("uv"))
    python = folder / "clean" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "-p", sys.executable, str(folder / "clean")], check=True)
    install = [uv, "pip", "install", "-q", "-p", str(python), "-c", str(ROOT / "requirements.lock")]
    subprocess.run([*install, f"relaymark[load,bench] @ {wheel.as_uri()}"], check=True)
    return str(python.with_name("relaymark"))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with decoys of all our top-level names."""
    folder = tmp_path_factory.mktemp("away")
    for name in NAMES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(DECOY)
    return folder


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, which is first on PYTHONPATH too."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
    )


SHORT = ("--participants", "20", "--rate", "50", "--duration", "1s", "--json", "--quiet")
COMMANDS = {
    "dialect": ("dialect", "check", "mine.py:Mine", "--relay", "mine.py:MineEnd"),
    "run": ("run", "room", *SHORT),
    "run --tls": ("run", "room", *SHORT, "--tls"),
    "compare": (
        "compare",
        "reference",
        "reference@uvloop",
        "--quick",
        "--rounds",
        "3",
        "--participants",
        "40",
        "--duration",
        "1s",
    ),
    "bench overhead": (
        *("bench", "overhead", "--parts", "end-to-end", "--rounds", "1", "--seconds", "1", "--participants", "20"),
    ),
}


@pytest.fixture(scope="module")
def done(relaymark: str, away: Path) -> Done:
    """What each command did: two at a time, as it is not their figures that count."""
    run([relaymark, "dialect", "new", "mine"], away)
    with ThreadPoolExecutor(2) as pool:
        started = {name: pool.submit(run, [relaymark, *words], away) for name, words in COMMANDS.items()}
    return {name: future.result() for name, future in started.items()}


def output_of(done: Done, name: str) -> str:
    """Return what a command printed; on a busy machine it may say that its own figures are invalid."""
    assert done[name].returncode in (EXIT_OK, EXIT_INVALID), done[name].stdout[-3000:] + done[name].stderr[-3000:]
    return done[name].stdout


def test_serve(relaymark: str, away: Path) -> None:
    command = [relaymark, "serve", "--listen", "127.0.0.1:0"]
    environment = os.environ | {"PYTHONPATH": str(away)}
    with subprocess.Popen(command, cwd=away, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("relaymark: serving ws://127.0.0.1:")
        finally:
            process.terminate()
            assert process.wait() == 0


@pytest.mark.parametrize(("name", "scheme"), [("run", "ws:"), ("run --tls", "wss:")])
def test_run(done: Done, name: str, scheme: str) -> None:
    result = json.loads(output_of(done, name))
    assert result["target"]["url"].startswith(scheme)
    assert result["kinds"]["message"]["ledger"]["delivered"] > 0


def test_dialect(done: Done) -> None:
    assert "18 checks passed, 0 failed, 0 not made" in output_of(done, "dialect")


def test_compare(done: Done) -> None:
    assert "reference@uvloop" in output_of(done, "compare")


def test_bench_overhead(done: Done) -> None:
    assert "encryption and TLS" in output_of(done, "bench overhead")


def test_plain_locust_finds_a_scenario_of_the_package(relaymark: str, away: Path) -> None:
    python = Path(relaymark).with_name("python")
    where = run([str(python), "-P", "-c", "import relaymark, loadtests; print(loadtests.__path__[0])"], away)
    scenario = f"{where.stdout.strip()}/scenarios/room.py"
    locust = [str(python.with_name("locust")), "-f", scenario, "--headless", "--host", "nowhere", "-t", "1s"]
    said = run(locust, away)
    assert said.returncode == EXIT_CONFIGURATION
    assert "relaymark: --host:" in said.stderr


def test_a_foreign_package_that_was_there_before_is_named_with_its_place(relaymark: str, tmp_path: Path) -> None:
    (tmp_path / "relay").mkdir()
    (tmp_path / "relay" / "__init__.py").write_text("")
    code = "import sys; sys.path.insert(0, '.'); import relay\ntry: import relaymark\nexcept ImportError as e: print(e)"
    said = run([str(Path(relaymark).with_name("python")), "-c", code], tmp_path).stdout
    assert f"but {tmp_path / 'relay'} was imported under this name before" in said

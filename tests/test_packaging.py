from __future__ import annotations

import email
import email.message
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that a release would upload."""
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out), cwd=ROOT)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution that a release would upload."""
    out = tmp_path_factory.mktemp("sdist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(out), cwd=ROOT)
    (path,) = out.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel in it, and this one's dependencies."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    _run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", str(wheel))
    # Path files in a path file's folders are not read, so the editable install is not found.
    places = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    dependencies = sysconfig.get_path("purelib")
    Path(places.strip(), "dependencies.pth").write_text(dependencies, encoding="utf-8")
    return python


def test_the_wheel_holds_every_module_the_type_marker_and_the_licence_and_no_more(
    wheel: Path,
) -> None:
    expected = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py")}
    expected |= {"httpx_refresh/py.typed"}
    held = set(zipfile.ZipFile(wheel).namelist())
    about = {name for name in held if ".dist-info/" in name}
    assert held - about == expected
    assert [name for name in about if name.endswith("/licenses/LICENSE")]


def test_the_installed_wheel_imports_without_a_warning(installed: Path) -> None:
    place = _run(
        str(installed), "-I", "-W", "error", "-c", "import httpx_refresh as p; print(p.__file__)"
    )
    assert Path(place.strip()).is_relative_to(installed.parents[1])


def test_the_version_is_the_newest_of_the_changelog(wheel: Path) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^]]+)\]", changelog, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert _metadata(wheel)["Version"] == versions[1]


def test_the_library_needs_four_packages_and_the_rest_are_extras(wheel: Path) -> None:
    needed = _metadata(wheel).get_all("Requires-Dist", [])
    core = {re.split(r"[^a-z0-9]", line)[0] for line in needed if "extra ==" not in line}
    assert core == {"anyio", "authlib", "filelock", "httpx", "publicsuffixlist"}
    extras = {"httpx2", "redis", "sql", "encrypted", "otel", "testing", "cli"}
    assert set(_metadata(wheel).get_all("Provides-Extra", [])) == extras


def test_the_description_renders_and_the_metadata_is_valid(wheel: Path, sdist: Path) -> None:
    said = _run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
    assert said.count("PASSED") == 2


def test_the_wheel_passes_its_check(wheel: Path) -> None:
    assert "OK" in _run(sys.executable, "-m", "check_wheel_contents", str(wheel))


def test_the_source_distribution_holds_what_contributing_names(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:scripts|tests|benchmarks|\.ci)/[\w./]*\w", text))
    assert {"scripts/test", "tests/house.py", ".ci/run"} <= named
    assert sorted(name for name in named if name not in held) == []
    assert {"README.md", "LICENSE", "SECURITY.md", "mkdocs.yml", "docs/index.md"} <= held
    assert [name for name in held if name.startswith((".venv", ".site", ".git/"))] == []


def test_an_environment_beside_the_sources_does_not_change_the_source_distribution(
    sdist: Path, tmp_path: Path
) -> None:
    """Hatchling follows links, and leaves out a directory that it has already visited."""
    with tarfile.open(sdist) as archive:
        held = set(archive.getnames())
    _run("tar", "-xzf", str(sdist), "-C", str(tmp_path))
    (root,) = tmp_path.iterdir()
    (root / ".venvs").mkdir()
    (root / ".venvs" / "scripts").symlink_to(root / "scripts")
    out = tmp_path / "out"
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(out), cwd=root)
    (path,) = out.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        assert set(archive.getnames()) == held


def _metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

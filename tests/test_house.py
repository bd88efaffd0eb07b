"""The rules of the house that a tool can hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from duragraph import sqlfiles

ROOT = Path(__file__).parent.parent
# Put together here, so that this file does not break its own rule.
REGISTRIES = ["pypi" + ".org", "python" + "hosted.org", "npmjs" + ".org", "npmjs" + ".com", "deb.debian" + ".org"]
MACHINE_PATH = re.compile(r"(?<![\w.$})])/(?:work|root|home/\w+)/")


def kept_files() -> list[Path]:
    """What is in the repository, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is not a checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> list[tuple[str, str]]:
    found = []
    for path in kept_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((str(path.relative_to(ROOT)), content.decode()))
    return found


def test_folders_that_are_no_packages_have_no_init() -> None:
    assert [name for name in ("sql", "worker", "docker") if (ROOT / name / "__init__.py").exists()] == []


def test_imports_follow_the_contracts() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_two_distributions_never_import_each_other() -> None:
    def imports(package: Path, other: str) -> list[str]:
        wanted = re.compile(rf"^\s*(?:import|from)\s+{other}\b", re.MULTILINE)
        return [str(path) for path in package.rglob("*.py") if wanted.search(path.read_text())]

    assert imports(ROOT / "duragraph", "duragraph_worker") == []
    assert imports(ROOT / "worker" / "duragraph_worker", "duragraph") == []


def test_install_sql_lists_every_file() -> None:
    sql = ROOT / "sql"
    assert (sql / "install.sql").read_text() == sqlfiles.table_of_contents(sql), "run: make sql-toc"


def test_no_file_names_a_package_registry() -> None:
    assert [(name, host) for name, text in texts() for host in REGISTRIES if host in text] == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert [(name, found[0]) for name, text in texts() if (found := MACHINE_PATH.search(text))] == []


def test_no_lock_file_with_addresses_is_kept() -> None:
    assert [path for path in kept_files() if path.name in ("uv.lock", "pylock.toml")] == []


def test_requirements_are_pinned_with_hashes() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        requirements = re.split(r"\n(?=\S)", path.read_text())
        pins = [text for text in requirements if not text.startswith("#")]
        assert pins
        assert [text.split()[0] for text in pins if "==" not in text or "--hash=sha256:" not in text] == []


def test_tests_never_sleep() -> None:
    sleeping = re.compile(r"\btime\.sleep[(]")
    assert [str(path) for path in (ROOT / "tests").rglob("test_*.py") if sleeping.search(path.read_text())] == []

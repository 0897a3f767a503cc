"""The import arrows: core <- client <- training, core <- server. And one home for the marker."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from stepback_core.trace import Grammar

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "stepback_core": ("core", set[str]()),
    "stepback_client": ("client", {"stepback_core"}),
    "stepback_server": ("server", {"stepback_core"}),
    "stepback_training": ("training", {"stepback_core", "stepback_client"}),
}
SERVER_LAYERS = [
    {"setting_values"},
    {"concurrency", "errors", "gc_tuning", "redaction", "settings"},
    {"checkpoint", "plugins", "request_context", "storage"},
    {"engine", "gateway"},
    {"observability", "scorers", "search"},
    {"jobs", "solve"},
    {"reload"},
    {"engine_provider"},
    {"pipeline"},
    {"idempotent_search"},
    {"service"},
    {"handlers"},
    {"api", "local"},
    {"app"},
    {"commands", "on_ray"},
]
"""Modules and folders of the server from the ground up: each may import lower layers only."""
DOORS = {
    # The one command of all packages: each subcommand is imported when it is called.
    "stepback_client/cli.py": {"stepback_server", "stepback_training"},
    # `stepback batch --model` and `--on ray`, which training searches through too, run a solver
    # without a server; `--on ray` reads addresses that the cluster alone can read.
    "stepback_client/batch/solvers.py": {"stepback_server"},
    "stepback_client/batch/inputs.py": {"stepback_server"},
}
"""Modules that may name another package against the arrows, as a string, to import it late. The
package need not be installed: who calls is told which extra is missing."""
HEAVY = {"torch", "transformers", "vllm", "fastapi", "uvicorn", "numpy"}
PURE = [
    "engine/completions.py",
    "scorers/adapters.py",
    "scorers/breaker.py",
    "scorers/messages.py",
    "solve/events.py",
    "search/best_first.py",
    "search/budget.py",
    "search/marker_probability.py",
    "search/self_backtracking.py",
    "search/ranking.py",
    "search/registry.py",
    "search/strategy.py",
    "search/task_view.py",
    "search/tree.py",
]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def sources(package: str) -> list[Path]:
    folder, _ = PACKAGES[package]
    found = sorted((ROOT / folder / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_its_arrows_allow(package: str) -> None:
    allowed = PACKAGES[package][1] | {package}
    for path in sources(package):
        strangers = {name for name in imports(path) if name in PACKAGES} - allowed
        assert not strangers, f"{path} imports {strangers}"


def named(path: Path) -> set[str]:
    """Packages of ours that a module names in a string by a dotted name, as `import_module` and
    `find_spec` take it, wherever the string stands."""
    texts = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    dotted = (re.fullmatch(r"(stepback_\w+)(\.\w+)*(:\w+)?", text) for text in texts)
    return {match[1] for match in dotted if match and match[1] in PACKAGES}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_names_in_strings_only_what_its_arrows_and_doors_allow(package: str) -> None:
    root = ROOT / PACKAGES[package][0]
    allowed = PACKAGES[package][1] | {package}
    for path in sources(package):
        door = DOORS.get(path.relative_to(root).as_posix(), set())
        assert named(path) - allowed == door, f"{path}: give each door its reason in DOORS"


@pytest.mark.parametrize("package", ["stepback_core", "stepback_client"])
def test_core_and_client_need_nothing_heavy(package: str) -> None:
    for path in sources(package):
        assert not imports(path) & HEAVY, path


def test_the_client_as_a_library_needs_nothing_of_the_terminal() -> None:
    code = "import sys; sys.modules['rich'] = None; import stepback_client, stepback_client.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", PURE)
def test_deciding_is_pure(name: str) -> None:
    path = ROOT / "server/stepback_server" / name
    assert not imports(path) & {"asyncio", "httpx", "torch", "vllm", "fastapi", "time"}


def test_the_marker_is_spelled_in_one_module() -> None:
    marker = Grammar().marker
    homes = [path.name for name in PACKAGES for path in sources(name) if marker in path.read_text()]
    assert homes == ["trace.py"]


def modules(package: str) -> dict[str, Path]:
    """Modules of a package by their dotted names. A folder's `__init__` has the folder's name."""
    root = ROOT / PACKAGES[package][0]
    names = (".".join(path.relative_to(root).with_suffix("").parts) for path in sources(package))
    return {
        name.removesuffix(".__init__"): path
        for name, path in zip(names, sources(package), strict=True)
    }


@cache
def imported(package: str) -> frozenset[tuple[str, str]]:
    """Pairs of modules of a package: one that imports, at its top or in a function, and what."""
    known = modules(package)
    found: set[tuple[str, str]] = set()
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            named = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = [f"{node.module}.{each}" for each in named]
                named = [each if each in known else node.module for each in inside]
            found |= {(name, each) for each in named if each in known}
    return frozenset(found)


def arrows(folder: str) -> set[tuple[str, str]]:
    """Imports between the modules and folders that lie in a folder, given by its dotted name."""

    def place(module: str) -> str | None:
        if module == folder:
            return "__init__"
        inside = module.removeprefix(f"{folder}.")
        return None if inside == module else inside.split(".")[0]

    pairs = {(place(one), place(other)) for one, other in imported(folder.split(".")[0])}
    return {(one, other) for one, other in pairs if one and other and one != other}


def circle(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Peel off what imports nothing that is left, until nothing can be peeled off."""
    while leaves := {below for _, below in pairs} - {above for above, _ in pairs}:
        pairs = {(above, below) for above, below in pairs if below not in leaves}
    return pairs


def folders() -> list[str]:
    return sorted(
        {
            name
            for package in PACKAGES
            for name, path in modules(package).items()
            if path.name == "__init__.py"
        }
    )


def test_no_import_goes_up_inside_the_server() -> None:
    level = {name: height for height, layer in enumerate(SERVER_LAYERS) for name in layer}
    for above, below in sorted(arrows("stepback_server")):
        assert {above, below} <= level.keys(), f"give {above} and {below} a layer"
        assert level[above] > level[below], f"{above} imports {below}, which is not below it"


def test_a_circle_is_found() -> None:
    assert circle({("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")}) >= {("b", "c"), ("c", "b")}
    assert not circle({("a", "b"), ("a", "c"), ("b", "c")})


@pytest.mark.parametrize("folder", folders())
def test_no_circle_inside_a_folder(folder: str) -> None:
    assert not circle(arrows(folder))

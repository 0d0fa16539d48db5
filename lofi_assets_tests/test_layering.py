"""What may import what, how light the location loads, and how long files and asset bodies may be."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lofi_assets"
MODULES = sorted(PACKAGE.rglob("*.py"))
DEFS = sorted((PACKAGE / "defs").glob("*.py"))

HEAVY = (
    *("torch", "transformers", "diffusers", "onnxruntime", "librosa", "laion_clap", "peft", "matplotlib", "datasets"),
    *("numba", "pandas", "pyarrow", "scipy", "sklearn"),
)
LOAD_BUDGET_S = 3.0
LONGEST_FILE = 400
LONGEST_ASSET_BODY = 15

PROBE = f"""
import json, sys, time
started = time.process_time()
from lofi_assets.definitions import defs
defs().get_repository_def()
seconds = time.process_time() - started
print(json.dumps({{"seconds": seconds, "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@cache
def imported(path: Path, *, nested: bool = True) -> tuple[str, ...]:
    """Every module that a file imports: anywhere in it, or only while it is itself imported."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative import; the package imports by full names"
            found += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(found)


def importers(*names: str) -> set[str]:
    """Files of the package that import any of the named modules, or anything below them."""
    return {
        relative(path)
        for path in MODULES
        if any(module == name or module.startswith(f"{name}.") for module in imported(path) for name in names)
    }


def layers() -> list[list[list[str]]]:
    """The table of docs/architecture.md: lines from the top, their peers, and what stands behind each `>` of a peer."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.partition("```layers\n")[2].partition("```")[0]
    return [[peer.split(" > ") for peer in re.split(r"\s{2,}", line.strip())] for line in block.splitlines()]


def may_import(importer: str, imported: str, table: list[list[list[str]]]) -> bool:
    """Whether one package or root module may import another: itself, a lower line, or right of it behind a `>`."""
    places = {
        name: (line, peer, order)
        for line, peers in enumerate(table)
        for peer, names in enumerate(peers)
        for order, name in enumerate(names)
    }
    (line, peer, order), (other_line, other_peer, other_order) = places[importer], places[imported]
    return line < other_line or (line == other_line and peer == other_peer and order <= other_order)


def parts() -> set[str]:
    """Packages and modules at the root of the package."""
    return {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def arrows() -> Iterator[tuple[str, str, str]]:
    """(file, its package or root module, the one that it imports) of every import inside the package."""
    for path in MODULES:
        own = relative(path).partition("/")[0].removesuffix(".py")
        for module in imported(path):
            package, _, below = module.partition(".")
            if package == PACKAGE.name and below:
                yield relative(path), own, below.partition(".")[0]


def test_a_package_imports_only_what_stands_below_it() -> None:
    table, known = layers(), parts()
    found = [(file, own, other) for file, own, other in arrows() if other in known]
    assert len(found) > 1000
    assert [f"{file} imports {other}" for file, own, other in found if not may_import(own, other, table)] == []


def test_the_table_of_layers_names_every_package_once() -> None:
    named = [name for peers in layers() for names in peers for name in names]
    assert sorted(named) == sorted(parts() - {"__init__"})


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        *(("a", "d", True), ("d", "a", False), ("b", "c", False), ("c", "b", False), ("e", "e", True)),
        *(("d", "e", True), ("e", "d", False), ("d", "f", False), ("f", "e", False), ("f", "f", True)),
    ],
)
def test_what_may_import_what(importer: str, imported: str, allowed: bool) -> None:
    """Of the lines `a`, `b  c`, `d > e  f`: a lower line, oneself, right behind a `>`; no peer, and nothing above."""
    assert may_import(importer, imported, [[["a"]], [["b"], ["c"]], [["d", "e"], ["f"]]]) is allowed


def test_no_module_is_imported_in_a_circle() -> None:
    """At import time; what a function imports when it is called comes later."""
    names = {relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in MODULES}
    graph = {
        name: {m.partition(".")[2] for m in imported(path, nested=False)} & names.keys() for name, path in names.items()
    }
    TopologicalSorter(graph).prepare()


def test_dagster_is_known_to_the_definitions_and_to_the_demos_run_alone() -> None:
    assert importers("dagster") <= {"definitions.py", "demo/run.py", *(relative(path) for path in DEFS)}


def test_a_model_family_is_known_to_itself_to_the_demos_base_and_to_its_own_commands_alone() -> None:
    families = [folder.name for folder in (PACKAGE / "backbones").iterdir() if (folder / "__init__.py").is_file()]
    knowing = importers(*(f"lofi_assets.backbones.{name}" for name in families))
    allowed = ("demo/base_recipe/", "cli/base_models.py", *(f"backbones/{name}/" for name in families))
    assert families and len(knowing) > 10
    assert sorted(path for path in knowing if not path.startswith(allowed)) == []


def called_modules(function: ast.FunctionDef, path: Path) -> set[str]:
    """Modules of the package that the functions which a body calls are imported from, at the top of its file."""
    called = {
        node.func.id for node in ast.walk(function) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return {
        str(node.module)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (alias.asname or alias.name) in called
    }


def test_the_function_that_an_asset_calls_is_in_the_module_of_its_name() -> None:
    for path, function in asset_functions():
        module = f"lofi_assets.{path.stem}.{function.name}"
        assert module in called_modules(function, path), f"{relative(path)}: {function.name} calls nothing of {module}"


def test_no_module_of_the_package_imports_the_tests() -> None:
    assert importers("lofi_assets_tests", "pytest") == set()


def test_nothing_pickled_from_outside_is_loaded() -> None:
    assert importers("pickle", "joblib", "dill", "cloudpickle") == set()


def test_the_location_loads_light() -> None:
    """The budget is 3 s (design.md section 8, `make bench`); a test asks for 10 s of CPU time, on any machine."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300, check=True, cwd=PACKAGE.parent
    )
    found = json.loads(done.stdout.splitlines()[-1])
    figure = f"the location loaded in {found['seconds']:.2f} s of CPU time, budget {LOAD_BUDGET_S:.0f} s"
    print(figure)
    assert found["heavy"] == []
    assert found["seconds"] < 10, figure


def imported_with(light: set[Path], *heavy: str) -> list[str]:
    """Where any of the heavy modules is imported while modules of the package, and what these import, are."""
    waiting, seen, found = sorted(light), set(light), []
    while waiting:
        path = waiting.pop()
        for module in imported(path, nested=False):
            if any(module == name or module.startswith(f"{name}.") for name in heavy):
                found.append(f"{relative(path)}: {module}")
            own = PACKAGE.parent / f"{module.replace('.', '/')}.py"
            if own in MODULES and own not in seen:
                seen.add(own)
                waiting.append(own)
    assert light <= set(MODULES) and len(seen) > len(light)
    return found


def test_who_reads_an_adapter_or_cached_conditions_waits_for_no_model_class() -> None:
    """peft and diffusers bring transformers and each other: 4 CPU-s of `lofi reproduce`, which builds no model."""
    light = {PACKAGE / "training" / "trainer" / "adapters.py", PACKAGE / "backbones" / "ace_step_v1" / "conditions.py"}
    light |= {*(PACKAGE / "training" / "reproduction").glob("*.py"), *(PACKAGE / "training" / "features").glob("*.py")}
    assert imported_with(light, "peft", "diffusers", "transformers", "bitsandbytes") == []


def test_tiers_that_are_unchanged_are_proven_without_torch() -> None:
    """3 to 5 CPU-s of every materialisation of `quantized_tiers` that has nothing to build."""
    assert imported_with({PACKAGE / "quantization" / "build.py"}, "torch", "transformers", "onnxscript") == []


def test_a_trainer_starts_without_autoencoders_and_pipelines() -> None:
    """One of diffusers' autoencoders brings all of them, and its training utilities bring its pipelines: a fifth of
    what a trainer imports, which trains on cached latents."""
    family = PACKAGE / "backbones" / "ace_step_v1"
    light = {family / f"{name}.py" for name in ("backbone", "size", "loading", "objective", "transformer", "sampler")}
    light |= {*(PACKAGE / "training" / "trainer").glob("*.py"), PACKAGE / "training" / "__main__.py"}
    heavy = ("models.autoencoders", "models.unets", "models.transformers", "pipelines", "training_utils")
    assert imported_with(light, *(f"diffusers.{name}" for name in heavy)) == []


def test_a_file_has_at_most_400_lines() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}


def asset_functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path in DEFS:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any("dg.asset(" in ast.unparse(d) for d in node.decorator_list):
                yield path, node


def test_an_asset_body_has_at_most_15_lines() -> None:
    found = list(asset_functions())
    assert len(found) == 15
    for path, function in found:
        assert ast.get_docstring(function), f"{function.name} tells nothing in the UI"
        _, *body = function.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
        assert lines <= LONGEST_ASSET_BODY, f"{relative(path)}: {function.name} has {lines} lines"


def test_every_module_says_what_it_is() -> None:
    silent = [relative(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []

"""The floors of the house: imports run downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ckptstore"

# One line a floor, from the ground up. A module may import from lower floors
# and from modules before it on its own floor.
FLOORS = (
    ("errors", "_capacity", "_policy_text", "retention", "garbage", "verify"),
    (
        "config",
        "_budget",
        "_chunking",
        "_clock",
        "_copying",
        "_encoding",
        "_memory",
        "_msgpack",
        "_pause",
        "_tasks",
        "_workers",
    ),
    ("_keys", "_gc_refs", "_schema", "_metadata", "backends.base", "backends", "serializers", "codecs"),
    ("checkpoint", "diff", "_table", "_summary", "_signing", "manifest", "_loop"),
    ("testing", "doctor", "_listing", "_snapshot", "_trust", "_upload", "_commit", "_summaries"),
    ("_fetch", "_download", "_compare", "_diff", "_tally", "_manifests", "_verify", "_usage"),
    ("_line", "_marker", "_edit", "_fallback", "_gc_listing", "_collect", "_retention", "_retention_runs"),
    ("_writer", "_request", "_reader", "_handle", "_sides", "_match", "_into"),
    ("_pending", "_captures", "_saves"),
    ("_life", "_upkeep", "_reading", "_copy", "store"),
    ("_outcome", "_blocking_handle", "sync"),
    ("ckptstore",),
    ("cli",),
    ("__main__",),
)
ORDER = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit(dotted: str) -> str:
    """The name on the floor plan that a module belongs to."""
    parts = dotted.split(".")[1:]
    if not parts:
        return "ckptstore"
    if parts[0] == "backends":
        return "backends.base" if parts[1:] == ["base"] else "backends"
    return parts[0]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> list[str]:
    """Modules of the package that are imported when the code runs (not only for types)."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "ckptstore":
            for alias in node.names:
                deeper = PACKAGE.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = deeper.with_suffix(".py").exists() or (deeper / "__init__.py").exists()
                found.append(f"{node.module}.{alias.name}" if is_module else node.module)
        elif isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names if alias.name.partition(".")[0] == "ckptstore")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_downwards(path: Path) -> None:
    here = unit(dotted(path))
    assert here in ORDER, f"{here} has no place on the floor plan"
    for target in imports(ast.parse(path.read_text())):
        there = unit(target)
        assert there == here or ORDER[there] < ORDER[here], f"{dotted(path)} imports {target} from above"


def test_no_concrete_backend_is_known_above_the_backends() -> None:
    for path in modules():
        name = dotted(path)
        if unit(name) in ("backends", "backends.base"):
            continue
        known = [target for target in imports(ast.parse(path.read_text())) if unit(target) == "backends"]
        assert set(known) <= {"ckptstore.backends"}, f"{name} knows {known}"


@pytest.mark.parametrize("folder", ["bench", "examples", "metaflow_plugin"])
def test_the_doors_use_public_names_only(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for target in imports(ast.parse(path.read_text())):
            private = [part for part in target.split(".")[1:] if part.startswith("_")]
            assert not private, f"{path.relative_to(ROOT)} imports {target}"


def test_the_rule_catches_an_import_upwards() -> None:
    tree = ast.parse("def f():\n    from ckptstore.store import AsyncCheckpointStore\n")
    assert [unit(target) for target in imports(tree)] == ["store"]
    assert not ORDER["store"] < ORDER["_keys"]


def test_no_circles_between_modules() -> None:
    graph = {
        dotted(path): {target for target in imports(ast.parse(path.read_text())) if target != dotted(path)}
        for path in modules()
        if dotted(path) != "ckptstore"
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            # A package's __init__ gathers its own modules; they do not import it back.
            visit(target, (*way, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize(
    "path",
    sorted(
        path
        for folder in ("ckptstore", "metaflow_plugin", "bench", "examples", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_no_two_test_modules_share_a_name() -> None:
    # They are imported by their names alone.
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))

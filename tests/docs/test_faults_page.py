"""The page of faults names tests that exist, and the soak's plan is what its seed says."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

TREE = Path(__file__).parents[2]
FAULTS = 25


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_fault_has_tests_and_they_exist() -> None:
    faults = loaded(TREE / "docs" / "faults_page.py").FAULTS

    assert len(faults) == FAULTS
    for fault in faults:
        assert fault.tests, fault.what
        for test in fault.tests:
            file, _, name = test.partition("::")
            tree = ast.parse((TREE / "tests" / file).read_text("utf-8"))
            assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, test


def test_plan_of_a_soak_is_the_seeds_alone() -> None:
    """Equal for equal seeds, another for another; every kind of fault as often as its like."""
    soak = loaded(TREE / "benchmarks" / "soak_plan.py")
    first = soak.plan(minutes=20, interval_s=17.0, seed=1)

    assert first == soak.plan(minutes=20, interval_s=17.0, seed=1)
    assert first != soak.plan(minutes=20, interval_s=17.0, seed=2)
    assert len(first) >= 60
    assert [each.at_s for each in first] == sorted(each.at_s for each in first)
    assert max(each.at_s for each in first) < 20 * 60
    counts = Counter(each.fault for each in first)
    assert set(counts) == set(soak.Fault)
    assert all(counts[fault] >= soak.TIMES_IN_A_DECK.get(fault, 1) * 2 for fault in counts)

"""The profiles of the property tests, and the modules that they share.

In CI each property sees a few dozen examples, the same in every run. For thousands, and new ones each time:
``pytest tests/exactness --hypothesis-profile=long``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from features.signals import Detection, EquipmentClass, FailureMode, Indicator, Paging, Signal, StateCodes

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors]
settings.register_profile("ci", max_examples=30, derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("long", max_examples=3000, deadline=None, suppress_health_check=_SLOW, print_blob=True)
settings.load_profile("ci")


def _module(name: str) -> ModuleType:
    """Load a module that lies beside this file: test folders are no packages."""
    full = f"exactness_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def arrivals() -> ModuleType:
    """Telemetry, the ways in which it arrives, and a run over it."""
    return _module("arrivals")


@pytest.fixture(scope="session")
def chain() -> ModuleType:
    """The steps of the dataflow in a row, without the engine."""
    return _module("chain")


@pytest.fixture(scope="session")
def flow_process() -> ModuleType:
    """The whole dataflow under the engine, and the program that runs it as one process of a cluster."""
    return _module("flow_process")


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """Windows, statistics and acceptance in plain NumPy."""
    return _module("oracle")


@pytest.fixture(scope="session")
def oracle_sql() -> ModuleType:
    """The same windows in DuckDB."""
    return _module("oracle_sql")


@pytest.fixture(scope="session")
def oracle_lift() -> ModuleType:
    """Trips, doors and levelling."""
    return _module("oracle_lift")


@pytest.fixture(scope="session")
def oracle_boiler() -> ModuleType:
    """Burner, ignition, difference, flue loss, pressure and circulation."""
    return _module("oracle_boiler")


@pytest.fixture(scope="session")
def oracle_spectra() -> ModuleType:
    """Band powers and envelope of segments."""
    return _module("oracle_spectra")


def _machine(window_s: float = 10.0, lateness_s: float = 5.0, idle_after_s: float = 60.0) -> EquipmentClass:
    """Return a small class: a fast signal, a slow one, a meter, and a state; it wears within minutes."""
    wide = (-1e12, 1e12)
    return EquipmentClass(
        name="machine",
        description="",
        window_s=window_s,
        lateness_s=lateness_s,
        idle_after_s=idle_after_s,
        silent_after_s=10.0 * idle_after_s,
        signals={
            "fast": Signal(unit="1", range=(-1e4, 1e4), period_s=0.1, description=""),
            "slow": Signal(unit="1", range=(-1e4, 1e4), period_s=1.0, description=""),
            "meter": Signal(unit="m3", range=wide, period_s=1.0, description=""),
            "state": Signal(unit="1", range=(0.0, 2.0), period_s=10.0, description=""),
        },
        states=StateCodes(signal="state", stopped=(1.0,), maintenance=(2.0,)),
        detection=Detection(features=("fast.mean", "slow.max", "fast.std"), warm_up=20, memory=200),
        horizons_s=(6.0 * window_s, 60.0 * window_s),
        failure_horizons=("2min", "4min"),
        failure_modes={
            "wear": FailureMode(
                description="Worn", advice="Mend it.", indicators=(Indicator(feature="slow.mean", fails_by=10.0),)
            )
        },
        paging=Paging(page_probability=0.6, ticket_probability=0.3),
    )


@pytest.fixture(scope="session")
def machine() -> Callable[..., EquipmentClass]:
    """A function that returns a small class with the window, lateness and idle time asked for."""
    return _machine

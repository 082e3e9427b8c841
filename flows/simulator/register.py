"""Who the simulated assets are: sites, buildings, providers, makes, and the parameters of each machine.

Parameters scatter twice: between makes and between the assets of a make, as peers do.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.assets import Asset, Register
from flows.simulator.weather import ZONE

__all__ = ["BoilerParams", "LiftParams", "Rows", "as_rows", "boiler_params", "lift_params", "register", "site_of"]

_SITES = (
    ("Les Tilleuls", "Rue des Tilleuls", "Lille"),
    ("Cité Jardin", "Avenue du Parc", "Roubaix"),
    ("Le Belvédère", "Boulevard de la Liberté", "Lens"),
    ("Les Glycines", "Rue des Glycines", "Arras"),
    ("Clos Saint-Martin", "Place Saint-Martin", "Douai"),
    ("Les Érables", "Allée des Érables", "Tourcoing"),
    ("Résidence du Lac", "Quai du Lac", "Valenciennes"),
    ("La Cerisaie", "Chemin de la Cerisaie", "Béthune"),
)
_BUILDINGS_A_SITE = 4
_LIFT_PROVIDERS = (("Ascenseurs Morel", "ASC-2023-11"), ("Élévation Nord", "ASC-2024-02"))
_HEAT_PROVIDERS = (("Thermie Service", "CHF-2022-07"), ("Chaleur du Nord", "CHF-2023-01"))
LIFT_MAKES = ("Altis A6", "Montéo G2", "Verticale VX")
BOILER_MAKES = ("Calora C120", "Brasier B90", "Foyera F150")


Rows = NDArray[Any]
"""One record an asset, as the kernels read them."""


def as_rows(parameters: tuple[NDArray[Any], ...], names: tuple[str, ...]) -> Rows:
    """Turn columns into records: one argument for a kernel, and an asset's parameters side by side."""
    rows = np.empty(len(parameters[0]), [(n, c.dtype, c.shape[1:]) for n, c in zip(names, parameters, strict=True)])
    for name, column in zip(names, parameters, strict=True):
        rows[name] = column
    return rows


class LiftParams(NamedTuple):
    """Parameters of each lift, one array a quantity; units in the names, ratios without."""

    site: NDArray[np.int64]
    offset_us: NDArray[np.int64]
    phase_s: NDArray[np.int64]
    floors: NDArray[np.int64]
    storey_m: NDArray[np.float64]
    speed_m_s: NDArray[np.float64]
    accel_m_s2: NDArray[np.float64]
    jerk_m_s3: NDArray[np.float64]
    calls_per_day: NDArray[np.float64]
    rated_a: NDArray[np.float64]
    idle_a: NDArray[np.float64]
    magnetising: NDArray[np.float64]
    balance: NDArray[np.float64]
    friction: NDArray[np.float64]
    inertia: NDArray[np.float64]
    inrush: NDArray[np.float64]
    rated_kg: NDArray[np.float64]
    open_s: NDArray[np.float64]
    close_s: NDArray[np.float64]
    dwell_s: NDArray[np.float64]
    reopening: NDArray[np.float64]
    level_bias_mm: NDArray[np.float64]
    level_sigma_mm: NDArray[np.float64]
    sway_x: NDArray[np.float64]
    sway_y: NDArray[np.float64]
    rumble: NDArray[np.float64]
    hum: NDArray[np.float64]
    rattle: NDArray[np.float64]
    line: NDArray[np.float64]
    line_hz: NDArray[np.float64]
    defect_hz: NDArray[np.float64]
    joint: NDArray[np.float64]
    joint_m: NDArray[np.float64]
    joint_hz: NDArray[np.float64]
    rope_hz: NDArray[np.float64]
    noise: NDArray[np.float64]
    room_c: NDArray[np.float64]
    motor_k: NDArray[np.float64]
    motor_tau_s: NDArray[np.float64]
    coil_k: NDArray[np.float64]
    duty: NDArray[np.float64]
    spread: NDArray[np.float64]
    age: NDArray[np.float64]


class BoilerParams(NamedTuple):
    """Parameters of each boiler, one array a quantity; units in the names, ratios without."""

    site: NDArray[np.int64]
    offset_us: NDArray[np.int64]
    phase_s: NDArray[np.int64]
    nominal_kw: NDArray[np.float64]
    lowest: NDArray[np.float64]
    households: NDArray[np.float64]
    loss_kw_k: NDArray[np.float64]
    radiator_kw_k: NDArray[np.float64]
    building_kj_k: NDArray[np.float64]
    body_kj_k: NDArray[np.float64]
    loop_kj_k: NDArray[np.float64]
    tank_kj_k: NDArray[np.float64]
    coil_kw_k: NDArray[np.float64]
    curve_base_c: NDArray[np.float64]
    curve_slope: NDArray[np.float64]
    setback_k: NDArray[np.float64]
    hysteresis_k: NDArray[np.float64]
    flow_m3_h: NDArray[np.float64]
    pump_w: NDArray[np.float64]
    approach_k: NDArray[np.float64]
    flame_ua: NDArray[np.float64]
    ignition: NDArray[np.float64]
    fill_bar: NDArray[np.float64]
    loss_bar_year: NDArray[np.float64]
    refill_day: NDArray[np.float64]
    vessel: NDArray[np.float64]
    air_bias_k: NDArray[np.float64]
    spread: NDArray[np.float64]
    age: NDArray[np.float64]


def site_of(building: int) -> int:
    """Return the number of the site that a building belongs to."""
    return building // _BUILDINGS_A_SITE


def _building_of(equipment: str, index: int) -> int:
    return index // 2 if equipment == "lift" else index


def register(lifts: int, boilers: int, floors: NDArray[np.int64], households: NDArray[np.float64]) -> Register:
    """Return the register: two lifts and one boiler a building, four buildings a site, two providers a trade."""
    found: Register = {}
    for equipment, count in (("lift", lifts), ("boiler", boilers)):
        makes = LIFT_MAKES if equipment == "lift" else BOILER_MAKES
        providers = _LIFT_PROVIDERS if equipment == "lift" else _HEAT_PROVIDERS
        for i in range(count):
            building = _building_of(equipment, i)
            site = site_of(building)
            name, street, town = _SITES[site % len(_SITES)]
            if site >= len(_SITES):
                name += f" {site // len(_SITES) + 1}"
            provider, contract = providers[site % 2]
            served = int(households[i]) if equipment == "boiler" else int(floors[i] - 1) * 2
            asset = Asset(
                id=f"{equipment}-{i + 1:04d}",
                equipment=equipment,
                site=name,
                building=f"{name} {'ABCD'[building % _BUILDINGS_A_SITE]}",
                address=f"{2 * building + 1} {street}, {town}",
                households=served,
                provider=provider,
                contract=contract,
                time_zone=ZONE,
                commissioned=f"{2005 + (7 * i) % 18}-{1 + (5 * i) % 12:02d}-01",
                make=makes[i % len(makes)],
                simulated=True,
            )
            found[asset.id] = asset
    return found


class _Draw:
    """Draws of one class, a row an asset, so that a longer fleet begins with the same assets."""

    def __init__(self, seed: int, code: int, count: int, makes: int) -> None:
        rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), 50 + code]))
        self._makes = rng.standard_normal((64, makes))
        rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), 60 + code]))
        self._assets = rng.standard_normal((count, 64))
        self._make = np.arange(count) % makes
        self._next = 0

    def around(self, centre: float, asset: float, make: float = 0.0) -> NDArray[np.float64]:
        """Draw lognormally around a median, scattering within and between makes."""
        between = self._makes[self._next][self._make]
        within = self._assets[:, self._next]
        self._next += 1
        out: NDArray[np.float64] = centre * np.exp(
            asset * np.clip(within, -2.5, 2.5) + make * np.clip(between, -1.5, 1.5)
        )
        return out

    def flat(self, low: float, high: float) -> NDArray[np.float64]:
        """Draw evenly between two bounds."""
        within = self._assets[:, self._next]
        self._next += 1
        rank = 0.5 * (1.0 + np.array([math.erf(v / math.sqrt(2.0)) for v in within]))
        out: NDArray[np.float64] = low + (high - low) * rank
        return out


def lift_params(seed: int, count: int) -> LiftParams:
    """Draw the lifts of a fleet."""
    d = _Draw(seed, 0, count, len(LIFT_MAKES))
    floors = np.round(d.flat(4.0, 11.0)).astype(np.int64)
    speed = np.where(floors > 7, 1.6, 1.0) * d.around(1.0, 0.02)
    trips = d.around(150.0, 0.22)
    storey = d.around(2.75, 0.02)
    modern = np.arange(count) % len(LIFT_MAKES) != 1  # the second make starts its motor on the mains
    ride_s = 0.5 * floors * storey / speed * 0.9 + 2.5
    return LiftParams(
        site=np.array([site_of(_building_of("lift", i)) for i in range(count)], np.int64),
        offset_us=(d.flat(0.0, 1.0) * 999_999).astype(np.int64),
        phase_s=(d.flat(0.0, 1.0) * 59.999).astype(np.int64),
        floors=floors,
        storey_m=storey,
        speed_m_s=speed,
        accel_m_s2=d.around(0.75, 0.05, 0.08),
        jerk_m_s3=d.around(1.0, 0.08, 0.1),
        calls_per_day=trips / 1.97,
        rated_a=d.around(15.0, 0.05, 0.2) * np.where(floors > 7, 1.35, 1.0),
        idle_a=d.around(0.35, 0.15, 0.1),
        magnetising=d.around(0.35, 0.04, 0.05),
        balance=d.flat(0.44, 0.5),
        friction=d.around(0.22, 0.08, 0.1),
        inertia=d.around(0.55, 0.06, 0.1),
        inrush=np.where(modern, 0.0, 1.6) * d.around(1.0, 0.05),
        rated_kg=np.where(floors > 6, 630.0, 450.0),
        open_s=d.around(2.3, 0.06, 0.06),
        close_s=d.around(2.9, 0.06, 0.06),
        dwell_s=d.around(4.0, 0.1, 0.1),
        reopening=d.flat(0.03, 0.08),
        level_bias_mm=d.flat(-2.0, 2.0),
        level_sigma_mm=d.around(1.6, 0.15, 0.15),
        sway_x=d.around(0.030, 0.12, 0.12),
        sway_y=d.around(0.026, 0.12, 0.12),
        rumble=d.around(0.014, 0.1, 0.1),
        hum=d.around(0.016, 0.1, 0.12),
        rattle=d.around(0.020, 0.1, 0.12),
        line=d.around(0.022, 0.12, 0.12),
        line_hz=d.flat(21.0, 28.0),
        defect_hz=d.flat(5.0, 9.0),
        joint=d.around(0.06, 0.15, 0.1),
        joint_m=d.flat(4.9, 5.1),
        joint_hz=d.flat(2.0, 3.2),
        rope_hz=d.flat(4.0, 7.0),
        noise=d.around(0.009, 0.1, 0.1),
        room_c=d.flat(14.0, 19.0),
        motor_k=d.around(55.0, 0.08, 0.1),
        motor_tau_s=d.around(2700.0, 0.1, 0.05),
        coil_k=d.around(70.0, 0.1, 0.08),
        duty=np.maximum(trips * ride_s / 62_000.0, 1e-4),
        spread=np.stack([d.around(1.0, 0.08) for _ in range(4)], axis=1),
        age=np.stack([d.flat(0.0, 0.03) for _ in range(4)], axis=1),
    )


def boiler_params(seed: int, count: int) -> BoilerParams:
    """Draw the boilers of a fleet."""
    d = _Draw(seed, 1, count, len(BOILER_MAKES))
    households = np.round(d.flat(20.0, 70.0))
    nominal = households * d.around(3.8, 0.06)
    design_kw = 0.46 * nominal  # collective boilers are larger than the coldest day asks for
    water_kj = nominal * d.around(6.0, 0.1) * 4.19
    return BoilerParams(
        site=np.array([site_of(_building_of("boiler", i)) for i in range(count)], np.int64),
        offset_us=(d.flat(0.0, 1.0) * 999_999).astype(np.int64),
        phase_s=(d.flat(0.0, 1.0) * 59.999).astype(np.int64),
        nominal_kw=nominal,
        lowest=d.around(0.32, 0.05, 0.08),
        households=households,
        loss_kw_k=design_kw / 27.0,
        radiator_kw_k=design_kw / 38.0 * d.around(1.0, 0.05),
        building_kj_k=design_kw / 27.0 * 3600.0 * d.around(55.0, 0.15),
        body_kj_k=nominal * 1.6 * 4.19,
        loop_kj_k=water_kj,
        tank_kj_k=households * d.around(60.0, 0.1) * 4.19,
        coil_kw_k=0.45 * nominal / 14.0 * d.around(1.0, 0.05),
        curve_base_c=d.flat(22.0, 26.0),
        curve_slope=d.around(1.45, 0.06),
        setback_k=d.flat(4.0, 9.0),
        hysteresis_k=d.flat(3.5, 6.0),
        flow_m3_h=nominal / (1.163 * 15.0) * d.around(1.0, 0.06),
        pump_w=nominal * d.around(2.6, 0.08, 0.1),
        approach_k=d.around(16.0, 0.08, 0.12),
        flame_ua=d.around(14.0, 0.08, 0.15),
        ignition=d.flat(0.955, 0.985),
        fill_bar=d.flat(1.5, 2.0),
        loss_bar_year=d.flat(0.08, 0.25),
        refill_day=d.flat(250.0, 290.0),
        vessel=d.around(0.1, 0.12),
        air_bias_k=d.flat(-0.6, 0.6),
        spread=np.stack([d.around(1.0, 0.08) for _ in range(4)], axis=1),
        age=np.stack([d.flat(0.0, 0.03) for _ in range(4)], axis=1),
    )

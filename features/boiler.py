"""Working cycles of a boiler: burner, ignition, exchanger, circulation, pressure.

Each kernel carries what it must from window to window, so a firing or an ignition that spans windows counts once. A
sample speaks until the next one, at most for `hold_s`: a value that old says nothing about the present, and a firing
with such a silence in it has no known length.

The file is long because it holds six kinds; each kernel stands alone and costs 1 to 3 ns a sample.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.compiled import kernel
from features.cycles import CycleKind, Output, count_event, held_us, rate_per_hour

__all__ = [
    "KINDS",
    "burner_step",
    "circulation_step",
    "difference_step",
    "flue_loss_step",
    "ignition_step",
    "pressure_decay_step",
]

A2, B = 0.66, 0.009
"""Siegert's constants of natural gas for the oxygen form, in percent and percent a kelvin (1. BImSchV, annex 2)."""

AIR_HOLD_US = 3_600_000_000
"""Outdoor air changes slowly, and many sites read it every quarter of an hour: a reading speaks for an hour."""

BIN_US = 600_000_000
"""Pressure and temperature are compared as means of ten minutes: the circuit's water follows the supply with a lag, and
a burner that cycles moves the supply but hardly the water."""

DAY_US = 86_400_000_000.0
MEMORY_D = 2.0
"""Time constant in days of the pressure regression: two daily heating programmes, and a leak of a week stands out."""

TREND_AFTER_D = 1.5
"""Days before a trend is given: with less than a whole daily programme, warming up looks like a rise of 0.2 bar/d."""

PRIOR_K2 = 324.0
"""Weight of the prior slope: what 36 bins (6 h) with a standard deviation of 3 K would say."""

REFILL_BAR = 0.15
"""A pressure that lies further above what temperature and trend explain is somebody topping up."""

# State of the pressure kernel: the open bin, then the regression.
WATER_AT, WATER, BIN, BIN_COUNT, BIN_TIME, BIN_K, BIN_P = range(7)
W, FIRST_DAY, MEAN_K, MEAN_D, MEAN_P, S_KK, S_KD, S_DD, S_KP, S_DP, SLOPE, TREND, DAY_BEFORE = range(7, 20)

Real = np.float32 | np.float64


@kernel
def burner_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Count firings, the time on, and the firings that are too short to be worth their start.

    A firing whose start or end fell into a silence counts as a start and has no length, so it is never called short.

    References
    ----------
    .. [1] C. Edmondson, "Condensing boiler plant piping design and control, part 7", JMP 2016: a boiler without load
       should still run for five minutes; a shorter firing is a short cycle.
    """
    threshold, short, hold = parameters[0], int(parameters[1] * 1e6), int(parameters[2] * 1e6)
    first, last, on, known, began = state[0], int(state[1]), state[2] == 1.0, state[3] == 1.0, int(state[4])
    starts, started, shorts, shortened = state[5], state[6], state[7], state[8]
    count = on_us = 0
    for i in range(len(times_us)):
        t = times_us[i]
        gap = first == 0.0 or t - last > hold
        if on:
            on_us += held_us(last, t, start_us, hold)
        if values[i] >= threshold:
            if not on:
                known, began = not gap, t
                if first != 0.0:
                    count += 1
                    starts = count_event(starts, started, t)
                    started = float(t)
            elif gap:
                known = False
            on = True
        else:
            if on and known and not gap and t - began < short:
                shorts = count_event(shorts, shortened, t)
                shortened = float(t)
            on = False
        if first == 0.0:
            first = float(t)
        last = t
    if on:
        on_us += held_us(last, end_us, start_us, hold)
    state[0], state[1], state[2], state[3], state[4] = first, last, on, known, began
    state[5], state[6], state[7], state[8] = starts, started, shorts, shortened
    if len(times_us) > 0:
        out[0], out[1] = count, on_us * 1e-6
        out[2] = rate_per_hour(starts, started, first, end_us)
        out[3] = rate_per_hour(shorts, shortened, first, end_us)
    else:
        out[:] = math.nan


@kernel
def ignition_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Count the sparks that a start needs until the flame stands.

    A start ends when the flame guard sees a flame, or, without one, when no spark has come for `give_up_s`: then the
    control has locked out and its attempts count too. A start with a silence in it is not counted. The flame current is
    read from `settled_s` after the flame stands. It fails where a spark is shorter than the sampling.

    References
    ----------
    .. [1] EN 298:2012 for ignition, safety time, recycling and lockout of burner controls.
    """
    flame_ua, settled = parameters[0], int(parameters[1] * 1e6)
    give_up, hold = int(parameters[2] * 1e6), int(parameters[3] * 1e6)
    spark_seen, spark_last, spark = state[0] == 1.0, int(state[1]), state[2] == 1.0
    attempts, broken, edge = state[3], state[4] == 1.0, int(state[5])
    flame_seen, flame_last, flame, since = state[6] == 1.0, int(state[7]), state[8] == 1.0, int(state[9])
    starts = currents = 0
    attempt_sum = current_sum = 0.0
    for i in range(len(times_us)):
        t = times_us[i]
        if attempts > 0.0 and t - edge > give_up:
            if flame_seen and not flame and not broken:
                starts += 1
                attempt_sum += attempts
            attempts, broken = 0.0, False
        if roles[i] == 0:
            gap = not spark_seen or t - spark_last > hold
            now = values[i] >= 0.5
            if now and not spark:
                attempts += 1.0
                edge = t
            broken = broken or (gap and attempts > 0.0)
            spark_seen, spark_last, spark = True, t, now
        else:
            gap = not flame_seen or t - flame_last > hold
            now = values[i] >= flame_ua
            broken = broken or (gap and flame_seen and attempts > 0.0)
            if now and (gap or not flame):
                since = t
            if now and not flame and attempts > 0.0:
                if not broken:
                    starts += 1
                    attempt_sum += attempts
                attempts, broken = 0.0, False
            if now and t - since >= settled:
                currents += 1
                current_sum += float(values[i])
            flame_seen, flame_last, flame = True, t, now
    state[0], state[1], state[2] = spark_seen, spark_last, spark
    state[3], state[4], state[5] = attempts, broken, edge
    state[6], state[7], state[8], state[9] = flame_seen, flame_last, flame, since
    out[0] = attempt_sum / starts if starts > 0 else math.nan
    out[1] = current_sum / currents if currents > 0 else math.nan


@kernel
def difference_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Average the difference of two temperatures over the time in which both are known.

    Each holds its last value, so the two may be sampled at different instants and rates. At a given output the spread
    of supply and return is heat over flow: ``power = flow density heat_capacity (supply - return)`` [1]_.

    References
    ----------
    .. [1] EN 12828:2012+A1:2014, 4.2: heat emission, flow and temperature difference of a water-based system.
    """
    hold = int(parameters[0] * 1e6)
    warm_seen, warm_last, warm = state[0] == 1.0, int(state[1]), state[2]
    cold_seen, cold_last, cold = state[3] == 1.0, int(state[4]), state[5]
    warms = colds = both_us = 0
    total = 0.0
    for i in range(len(times_us) + 1):
        t = times_us[i] if i < len(times_us) else end_us
        if warm_seen and cold_seen:
            newer, older = max(warm_last, cold_last), min(warm_last, cold_last)
            span = max(0, min(t, older + hold) - max(newer, start_us))
            both_us += span
            total += (warm - cold) * span
        if i == len(times_us):
            break
        if roles[i] == 0:
            warms += 1
            warm_seen, warm_last, warm = True, t, float(values[i])
        else:
            colds += 1
            cold_seen, cold_last, cold = True, t, float(values[i])
    state[0], state[1], state[2] = warm_seen, warm_last, warm
    state[3], state[4], state[5] = cold_seen, cold_last, cold
    out[0] = total / both_us if warms > 0 and colds > 0 and both_us > 0 else math.nan


@kernel
def flue_loss_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Judge the exchanger by how hot the flue gas leaves it, while the burner has been on for `settled_s`.

    The loss is Siegert's, ``(flue - air) (A2 / (21 - O2) + B)`` percent of the heat put in [1]_, as a ratio, without
    the gain of condensation. Oxygen is not measured here: it is the burner's setting, `o2_percent`.

    The approach is the flue gas above the returning water, divided by the burner's output to the power of
    `load_exponent`. Gas that enters 1500 K above the water and leaves 15 K above it has NTU = 4.6, and leaves at
    ``1500 exp(-NTU output**-0.2)`` at part load if its heat transfer grows with flow to the 0.8 [2]_: from a fifth of
    nominal output upwards a straight line through zero (exponent 1, the default) is within 15 % of that. An exchanger
    with a flatter curve wants a smaller exponent.

    References
    ----------
    .. [1] 1. BImSchV (Germany, 2010), annex 2, number 3.4.1: flue loss after Siegert.
    .. [2] F. P. Incropera, D. P. DeWitt, "Fundamentals of heat and mass transfer", sections 8.5 (flow to the 0.8) and
       11.4 (effectiveness and NTU).
    """
    threshold, settled = parameters[0], int(parameters[1] * 1e6)
    factor = (A2 / (21.0 - parameters[2]) + B) * 0.01
    hold, exponent = int(parameters[3] * 1e6), parameters[4]
    burner_last, output, since = int(state[0]), state[1], int(state[2])
    air_last, air, water_last, water = int(state[3]), state[4], int(state[5]), state[6]
    losses = approaches = waters = 0
    excess = above = load = 0.0
    for i in range(len(times_us)):
        t, value = times_us[i], float(values[i])
        if roles[i] == 0:
            if value < threshold:
                since = 0
            elif since == 0 or t - burner_last > hold:
                since = t
            burner_last, output = t, value
        elif roles[i] == 1:
            air_last, air = t, value
        elif roles[i] == 2:
            waters += 1
            water_last, water = t, value
        elif since != 0 and t - since >= settled and t - burner_last <= hold:
            if air_last != 0 and t - air_last <= AIR_HOLD_US:
                losses += 1
                excess += value - air
            if water_last != 0 and t - water_last <= hold:
                approaches += 1
                above += value - water
                load += output if exponent == 1.0 else output**exponent
    state[0], state[1], state[2] = burner_last, output, since
    state[3], state[4], state[5], state[6] = air_last, air, water_last, water
    out[0] = factor * excess / losses if losses > 0 else math.nan
    out[1] = above / load if approaches > 0 and waters > 0 else math.nan


@kernel
def _regress(state: NDArray[np.float64], day: float, kelvin: float, bar: float, prior: float) -> None:
    """Add the means of one bin to the regression of pressure on temperature and time, older bins fading [1]_.

    Solves ``bar = level + slope kelvin + trend day`` by the normal equations of the centred sums; the slope leans on
    `prior` (ridge) until the asset's own temperature has varied enough to say it.

    References
    ----------
    .. [1] T. Finch, "Incremental calculation of weighted mean and variance", 2009, section 9; co-moments alike.
    .. [2] A. E. Hoerl, R. W. Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
    """
    weight = state[W]
    if weight > 0.0:
        fade = math.exp((state[DAY_BEFORE] - day) / MEMORY_D)
        explained = state[SLOPE] * (kelvin - state[MEAN_K]) + state[TREND] * (day - state[MEAN_D])
        rise = bar - state[MEAN_P] - explained
        if day - state[FIRST_DAY] >= TREND_AFTER_D and rise > REFILL_BAR:
            state[MEAN_P] += rise
        weight *= fade
        for moment in range(S_KK, S_DP + 1):
            state[moment] *= fade
    total = weight + 1.0
    share = weight / total
    dk, dd, dp = kelvin - state[MEAN_K], day - state[MEAN_D], bar - state[MEAN_P]
    if weight == 0.0:
        dk, dd, dp, state[FIRST_DAY] = 0.0, 0.0, 0.0, day
        state[MEAN_K], state[MEAN_D], state[MEAN_P] = kelvin, day, bar
    state[S_KK] += share * dk * dk
    state[S_KD] += share * dk * dd
    state[S_DD] += share * dd * dd
    state[S_KP] += share * dk * dp
    state[S_DP] += share * dd * dp
    state[MEAN_K] += dk / total
    state[MEAN_D] += dd / total
    state[MEAN_P] += dp / total
    state[W] = total
    kk, kp = state[S_KK] + PRIOR_K2, state[S_KP] + PRIOR_K2 * prior
    determinant = kk * state[S_DD] - state[S_KD] * state[S_KD]
    if determinant > 0.0:
        state[SLOPE] = (kp * state[S_DD] - state[S_KD] * state[S_DP]) / determinant
        state[TREND] = (kk * state[S_DP] - state[S_KD] * kp) / determinant
    else:
        state[SLOPE], state[TREND] = prior, 0.0
    state[DAY_BEFORE] = day


@kernel
def pressure_decay_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Tell a leak from cooling water: the pressure that the circuit would have at `reference_c`, and its trend.

    Water expands into the gas of the vessel, so pressure follows temperature; near working temperature on a line whose
    slope is the circuit's own. Slope and trend are regressed together, so that a leak is not taken for cooling, on
    means of ten minutes that fade over two days. Until the asset has shown its slope the correction leans on
    `bar_per_k`. A refill lifts the level and leaves the trend. A slope that rises says that the vessel has lost gas.

    It fails where the pressure depends on the pump more than on temperature. The trend is unknown for a day and a half.

    References
    ----------
    .. [1] EN 12828:2012+A1:2014, annex D: expansion volume, vessel, initial and final pressure.
    """
    reference, prior, hold = parameters[0], parameters[1], int(parameters[2] * 1e6)
    water_at, water, bin_ = int(state[WATER_AT]), state[WATER], int(state[BIN])
    n, time_sum, kelvin_sum, bar_sum = state[BIN_COUNT], state[BIN_TIME], state[BIN_K], state[BIN_P]
    slope = state[SLOPE] if state[W] > 0.0 else prior
    temperatures = count = 0
    total = 0.0
    for i in range(len(times_us)):
        t, value = times_us[i], float(values[i])
        if roles[i] == 0:
            temperatures += 1
            water_at, water = t, value
            continue
        if water_at == 0 or t - water_at > hold:
            continue
        if t // BIN_US != bin_:
            if n > 0.0:
                day = (bin_ * BIN_US + time_sum / n) / DAY_US
                _regress(state, day, kelvin_sum / n - reference, bar_sum / n, prior)
                slope = state[SLOPE]
            bin_, n, time_sum, kelvin_sum, bar_sum = t // BIN_US, 0.0, 0.0, 0.0, 0.0
        n += 1.0
        time_sum += t - bin_ * BIN_US
        kelvin_sum += water
        bar_sum += value
        count += 1
        total += value - slope * (water - reference)
    state[WATER_AT], state[WATER], state[BIN] = water_at, water, bin_
    state[BIN_COUNT], state[BIN_TIME], state[BIN_K], state[BIN_P] = n, time_sum, kelvin_sum, bar_sum
    known = count > 0 and temperatures > 0
    shown = known and state[W] > 0.0 and state[DAY_BEFORE] - state[FIRST_DAY] >= TREND_AFTER_D
    out[0] = total / count if known else math.nan
    out[1] = state[TREND] if shown else math.nan
    out[2] = slope if shown else math.nan


@kernel
def circulation_step(
    state: NDArray[np.float64],
    times_us: NDArray[np.int64],
    roles: NDArray[np.int8],
    values: NDArray[Real],
    start_us: int,
    end_us: int,
    parameters: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    """Say what the pump pays for a cubic metre: mean power over mean flow while it runs.

    ``W / (m3/h) = W h / m3``, which is head over efficiency [1]_: a worn bearing or a fouled strainer raises it, and it
    moves less with pump speed than power or flow do. Without flow it is unknown, and the flow is 0.

    References
    ----------
    .. [1] ISO 17769-1:2012, hydraulic power ``density g head flow``; EN 16297-1:2012 for a circulator's electric power.
    """
    threshold, hold = parameters[0], int(parameters[1] * 1e6)
    last, power = int(state[0]), state[1]
    powers = count = 0
    power_sum = flow_sum = 0.0
    for i in range(len(times_us)):
        t, value = times_us[i], float(values[i])
        if roles[i] == 0:
            powers += 1
            last, power = t, value
        elif last != 0 and t - last <= hold and power >= threshold:
            count += 1
            power_sum += power
            flow_sum += value
    state[0], state[1] = last, power
    known = count > 0 and powers > 0
    out[0] = power_sum / flow_sum if known and flow_sum > 0.0 else math.nan
    out[1] = flow_sum / count if known else math.nan


KINDS: dict[str, CycleKind] = {
    "burner": CycleKind(
        code=11,
        roles=("modulation",),
        parameters=(("on", 0.02), ("short_s", 300.0), ("hold_s", 5.0)),
        outputs=(
            Output("starts", "1", "modulation", "Burner starts in the window"),
            Output("on_s", "s", "modulation", "Time on in the window"),
            Output("starts_per_hour", "/h", "modulation", "Rate of starts, exponentially weighted over an hour"),
            Output("short_cycles_per_hour", "/h", "modulation", "Rate of firings shorter than short_s, over an hour"),
        ),
        state_size=9,
        step=burner_step,
    ),
    "ignition": CycleKind(
        code=12,
        roles=("spark", "flame"),
        parameters=(("flame_ua", 1.0), ("settled_s", 10.0), ("give_up_s", 120.0), ("hold_s", 5.0)),
        outputs=(
            Output("attempts", "1", "spark", "Ignition attempts a start, of the starts that ended in the window"),
            Output("flame_current_ua", "uA", "flame", "Mean ionisation current while the flame stands and is settled"),
        ),
        state_size=10,
        step=ignition_step,
    ),
    "difference": CycleKind(
        code=13,
        roles=("warm", "cold"),
        parameters=(("hold_s", 5.0),),
        outputs=(Output("mean", "K", "warm", "Mean difference over the window"),),
        state_size=6,
        step=difference_step,
    ),
    "flue_loss": CycleKind(
        code=14,
        roles=("modulation", "air", "water", "flue"),
        parameters=(
            ("on", 0.02),
            ("settled_s", 120.0),
            ("o2_percent", 4.0),
            ("hold_s", 5.0),
            ("load_exponent", 1.0),
        ),
        outputs=(
            Output("loss_ratio", "1", "flue", "Flue loss by Siegert's formula while the burner is settled"),
            Output("approach_k", "K", "flue", "Flue gas above the returning water at nominal output"),
        ),
        state_size=7,
        step=flue_loss_step,
    ),
    "pressure_decay": CycleKind(
        code=15,
        roles=("temperature", "pressure"),
        parameters=(("reference_c", 50.0), ("bar_per_k", 0.01), ("hold_s", 60.0)),
        outputs=(
            Output("corrected_bar", "bar", "pressure", "Pressure, corrected for the temperature of the water"),
            Output("bar_per_day", "bar/d", "pressure", "Trend of the corrected pressure"),
            Output(
                "bar_per_k", "bar/K", "pressure", "Rise of the pressure with temperature; rises as the vessel fails"
            ),
        ),
        state_size=20,
        step=pressure_decay_step,
    ),
    "circulation": CycleKind(
        code=16,
        roles=("power", "flow"),
        parameters=(("running_w", 5.0), ("hold_s", 5.0)),
        outputs=(
            Output("w_h_per_m3", "W.h/m3", "power", "Electric work a cubic metre moved while the pump runs"),
            Output("flow_m3_h", "m3/h", "flow", "Mean flow while the pump runs"),
        ),
        state_size=2,
        step=circulation_step,
    ),
}

"""The page in headless Chromium: what it shows, by keyboard, on a phone, and with hostile names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from features.assets import Asset
from features.signals import load_class
from features.telemetry import Reason, Rejected
from features.windows import Silence
from flows.exporter import Server
from flows.fleet import Fleet
from flows.metrics import STATES, Pipeline

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Make = Callable[..., Any]
LIFT, BOILER = load_class("lift"), load_class("boiler")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = '<img src=x onerror="window.hacked=1"> "\'&amp;</td>'
T0_US = 1_780_000_000_000_000


@pytest.fixture(scope="module")
def browser(program: Callable[[str], str]) -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = program("chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open the page of a fleet; any complaint of the browser fails the test."""
    servers, contexts, complaints = [], [], []

    def visit(fleet: Fleet, width: int = 1280, height: int = 800, **options: Any) -> Page:
        servers.append(Server(fleet, Pipeline(CollectorRegistry())).start())
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(servers[-1].url)
        page.locator(".row, #empty:not([hidden])").first.wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    for server in servers:
        server.close()
    assert complaints == []


@pytest.fixture
def fleet(assessed: Make, decision: Make) -> Fleet:
    """Sixty lifts and boilers with a past of two days, in every state."""
    lifts = [f"lift-{n:02d}" for n in range(54)] + [HOSTILE]
    boilers = [f"boiler-{n}" for n in range(5)]
    register = {
        name: Asset(
            id=name,
            equipment=name.partition("-")[0] if "-" in name[:8] else "lift",
            building=f"Les Tilleuls, building {'ABCDEF'[n % 6]}",
            provider="Ascenseurs du Nord",
            households=20 + n,
            simulated=True,
        )
        for n, name in enumerate(lifts + boilers)
    }
    fleet = Fleet({"lift": LIFT, "boiler": BOILER}, register, history=True)
    states = ["failing", "degraded", *STATES[:2], *STATES[4:]] + ["ok"] * (len(lifts) - 7)
    states[-1] = "degraded"
    failing = np.array([state == "failing" for state in states])
    degraded = np.array([state == "degraded" for state in states])
    for step in range(60):
        wear = step / 60
        p = (
            np.where(failing[:, None], [0.08, 0.46, 0.92], np.where(degraded[:, None], [0.01, 0.06, 0.41], 0.002))
            * wear
        )
        p[states.index("warming")] = np.nan
        p[-1] /= 2
        rul = np.where((failing | degraded)[:, None], [1.6e5, 2.6e5, 4.3e5], np.nan)
        x = 1.5 + 0.1 * np.sin(np.arange(15) + step) + np.outer(2 * failing + degraded, np.full(15, wear))
        fleet.update(assessed(LIFT, lifts, states, end_us=T0_US + step * 2_880_000_000, p_fail=p, rul_s=rul, x=x))
    fleet.update(assessed(BOILER, boilers, p_fail=np.full((5, 3), 0.001)))
    fleet.silent(Silence(lifts, np.array([4], np.int32), np.array([T0_US]), T0_US))
    fleet.decide(decision("lift-00"))
    fleet.decide(decision("lift-01", "ticket"))
    fleet.reject([Rejected(Reason.OUT_OF_RANGE, 1234, "gateway", HOSTILE.encode(), asset=HOSTILE, detail="too hot")])
    return fleet


def shown(page: Page) -> list[str]:
    return page.locator("button.asset").all_inner_texts()


def count(page: Page, selector: str, n: int) -> None:
    """Wait until there are so many."""
    page.locator(f":nth-match({selector}, {n + 1})").wait_for(state="detached")
    page.locator(f":nth-match({selector}, {n})").wait_for()


def picture(page: Page, name: str, folder: Path) -> None:
    """Keep a picture; `VIGIE_PICTURES` names a folder that outlives the test."""
    kept = Path(os.environ.get("VIGIE_PICTURES", folder))
    kept.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(kept / f"{name}.png"))
    assert (kept / f"{name}.png").stat().st_size > 10_000


def test_the_fleet_is_shown_by_risk_with_its_reasons(visit: Make, fleet: Fleet, tmp_path: Path) -> None:
    page = visit(fleet)
    assert page.locator("h1").inner_text() == "Vigie"
    assert page.locator("#simulated").inner_text().startswith("Simulated fleet")
    assert shown(page)[0] == "lift-00"
    row = page.locator(".row").first
    text = row.inner_text()
    for said in ("Failing", "Page sent", "Simulated", "Door operator worn", "Clean the sill", "2 h", "24 h", "7 days",
                 "90 %", "2 to 5 days", "50 %", "usual 1 to 2"):  # fmt: skip
        assert said in text, said
    assert row.locator("svg.chart .band").count() == 3
    assert row.locator("svg.chart .trace").count() == 3
    label = row.locator("svg.chart").first.get_attribute("aria-label")
    assert label is not None
    assert "usual 1 to 2" in label
    picture(page, "desktop", tmp_path)


def test_what_cannot_be_known_is_said_and_never_0(visit: Make, fleet: Fleet) -> None:
    page = visit(fleet)
    for asset, words in (("lift-02", "cannot know yet"), ("lift-04", "cannot know while it is silent")):
        page.locator("#search").fill(asset)
        page.locator(f".row:first-child button.asset:text-is('{asset}')").wait_for()
        text = page.locator(".row").first.inner_text()
        assert text.count(words) == 2
        assert "%" not in text


def test_a_state_is_a_filter_and_told_without_colour(visit: Make, fleet: Fleet) -> None:
    page = visit(fleet)
    button = page.get_by_role("button", name="Degraded")
    assert button.locator("svg.symbol").count() == 1
    button.click()
    count(page, ".row", 2)
    assert set(shown(page)) == {"lift-01", HOSTILE}
    assert button.get_attribute("aria-pressed") == "true"
    page.reload()
    page.wait_for_selector(".row")
    assert len(shown(page)) == 2, "the address keeps what was asked for"
    shapes = page.eval_on_selector_all("#states path", "all => all.map(p => p.getAttribute('d'))")
    assert len(set(shapes)) == 8


def test_a_row_opens_by_keyboard_and_stays_open_and_focused_through_a_refresh(
    visit: Make, fleet: Fleet, assessed: Make, tmp_path: Path
) -> None:
    page = visit(fleet)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "lift-00"
    page.keyboard.press("Enter")
    page.wait_for_selector(".panel")
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
    panel = page.locator(".panel").inner_text()
    for said in ("What to do", "Ascenseurs du Nord", "Closing takes 3.5 s", "Health by failure mode",
                 "Chance of a breakdown within 7 days"):  # fmt: skip
        assert said in panel, said
    assert page.locator(".panel figure").count() == 1 + len(LIFT.detection.features)
    picture(page, "opened", tmp_path)
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "lift-01"
    page.keyboard.press("Space")
    count(page, ".panel", 2)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    page.evaluate("window.scrollTo(0, 300)")
    # Another asset becomes the worst: the rows move, the reader does not.
    fleet.update(assessed(LIFT, ["lift-30"], "failing", end_us=T0_US + 10**12, p_fail=[[0.1, 0.5, 0.99]]))
    page.evaluate("load()")
    page.locator(".row:first-child button.asset:text-is('lift-30')").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "lift-01"
    assert page.locator(".detail:not([hidden])").count() == 2
    assert page.evaluate("window.scrollY") > 0
    page.keyboard.press("Enter")
    assert page.locator(".detail:not([hidden])").count() == 1


def test_updates_can_be_paused(visit: Make, fleet: Fleet) -> None:
    page = visit(fleet)
    page.get_by_role("button", name="Pause updates").press("Enter")
    assert page.get_by_role("button", name="Updates paused").get_attribute("aria-pressed") == "true"


def test_ten_thousand_assets_are_paged_and_searched(visit: Make, assessed: Make) -> None:
    fleet = Fleet({"lift": LIFT})
    fleet.update(assessed(LIFT, [f"lift-{n:05d}" for n in range(10_000)], p_fail=np.full((10_000, 3), 0.01)))
    page = visit(fleet)
    assert page.locator("#count").inner_text() == "10,000 assets, 1 to 50 shown"
    assert page.locator(".row").count() == 50
    page.get_by_role("button", name="Next").first.click()
    page.locator(".row:first-child button.asset:text-is('lift-00050')").wait_for()
    assert page.locator(".pager span").first.inner_text() == "Page 2 of 200"
    page.locator("#search").fill("lift-0999")
    count(page, ".row", 10)
    assert page.locator("#count").inner_text() == "10 of 10,000 assets"
    page.locator("#search").fill("no such thing")
    page.wait_for_selector("#empty:not([hidden])")
    assert page.locator("#empty").inner_text() == "No asset matches what you asked for."
    assert not page.locator("#simulated").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(scheme: str, visit: Make, fleet: Fleet, tmp_path: Path) -> None:
    page = visit(fleet, 360, 740, color_scheme=scheme, device_scale_factor=2)
    picture(page, f"phone-{scheme}", tmp_path)
    page.locator("button.asset").first.click()
    page.wait_for_selector(".panel")
    page.locator("#rejected summary").click()
    page.wait_for_selector(".example")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator(".row").first.scroll_into_view_if_needed()
    picture(page, f"phone-{scheme}-row", tmp_path)


def test_a_hostile_name_stays_text(visit: Make, fleet: Fleet) -> None:
    page = visit(fleet)
    page.locator("#search").fill("onerror")
    count(page, ".row", 1)
    assert page.locator("button.asset").text_content() == HOSTILE
    page.locator("button.asset").click()
    page.wait_for_selector(".panel")
    page.locator("#rejected summary").click()
    page.wait_for_selector(".example")
    assert page.locator(".example code").inner_text() == HOSTILE
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None


def test_rejected_input_is_told_with_its_reason(visit: Make, fleet: Fleet, tmp_path: Path) -> None:
    page = visit(fleet, color_scheme="dark")
    assert page.locator("#rejected-summary").inner_text() == "Rejected input: 1,234 readings"
    page.locator("#rejected-summary").press("Enter")
    page.wait_for_selector(".example")
    assert "outside the plausible range of its signal" in page.locator("#reasons").inner_text()
    page.evaluate("window.scrollTo(0, 0)")
    picture(page, "dark", tmp_path)


def test_an_empty_fleet_says_that_it_waits(visit: Make) -> None:
    page = visit(Fleet({"lift": LIFT}))
    assert page.locator("#empty").inner_text().startswith("No asset has been scored yet")
    assert page.locator("#freshness").inner_text() == "No data yet"


def test_lead_times_and_chances_in_words(visit: Make) -> None:
    page = visit(Fleet({"lift": LIFT}))
    day = 86400
    for band, words in (
        ([1.6 * day, 3 * day, 4.8 * day], "2 to 5 days"),
        ([3600 * 5, day, 3 * day], "5 hours to 3 days"),
        ([4 * day, 4 * day, 4.2 * day], "about 4 days"),
        ([600, 1200, 3600], "10 to 60 minutes"),
        ([10, 20, 50], "10 to 50 seconds"),
        ([None, None, None], None),
        ([30 * day, 90 * day, None], "more than 30 days"),
        ([0, 600, 4 * 3600], "up to 4 hours"),
        ([70 * day, 100 * day, 200 * day], "2 to 7 months"),
        ([500 * day, 600 * day, 800 * day], "more than a year"),
    ):
        assert page.evaluate("band => lead(band)", band) == words
    assert page.evaluate("[0, 0.0049, 0.005, 0.5, 0.995, 0.9951, 1].map(percent)") == [
        "<1 %", "<1 %", "1 %", "50 %", "100 %", ">99 %", ">99 %",
    ]  # fmt: skip

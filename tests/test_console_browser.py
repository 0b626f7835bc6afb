"""The console in a real Chromium: it is accessible, loads nothing from elsewhere, and does what its scripts promise."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no annotations
from exhibition import fill, name_backends, new_run
from house import House
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from serving import serving
from visitor import SCRIPT_FREE, TOKEN

PATIENCE_MS = 30_000
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        missing = "needs Chromium on PATH (Debian, Ubuntu: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass  # no slots: Playwright hangs its handlers on it
class Console:
    """A served console, and whoever looks at it."""

    url: str
    browser: Browser
    house: House
    troubles: list[str] = field(default_factory=list)

    def open(self, path: str = "/console/", **options: object) -> Page:
        """A page in a browser of its own; what goes wrong in it is kept."""
        context: BrowserContext = self.browser.new_context(base_url=self.url, **options)  # type: ignore[arg-type]  # of any kind
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", self._see)
        page.goto(path)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def _see(self, request: Request) -> None:
        if not request.url.startswith(self.url):
            self.troubles.append(f"asked {request.url}")


@pytest.fixture(scope="module")
def console(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    house = House(tmp_path_factory.mktemp("console"))
    fill(house)
    with serving(house, dispatcher_backends=str(name_backends(house))) as served:
        yield Console(str(served.client.base_url).rstrip("/"), browser, house)
    house.close()


def run_of(house: House) -> str:
    [run] = [entry.name for entry in house.store.list(".nightreel/runs/") if "ended" in entry.name]
    return Path(run).stem


@pytest.mark.parametrize("look", ["light", "dark and narrow"])
def test_every_page_is_accessible_and_loads_nothing_from_elsewhere(console: Console, look: str) -> None:
    """axe-core's rules for WCAG 2.2 A and AA, contrast included."""
    options = {"color_scheme": "light"} if look == "light" else {"color_scheme": "dark", "viewport": PHONE}
    page = console.open("/console/", **options)
    for path in (
        *("/console/", "/console/batches", "/console/batches/b", "/console/batches/b/made", "/console/batches/b/dear"),
        *(
            "/console/submit",
            "/console/runs",
            f"/console/runs/{run_of(console.house)}",
            "/console/backends",
            "/console/sign-in",
        ),
    ):
        page.goto(path)
        if path == "/console/submit":
            page.fill("#text", "a boat\n")
            page.wait_for_selector("#found button")
        results = Axe().run(page)

        assert results.violations_count == 0, f"{path}: {results.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    assert console.troubles == []
    page.context.close()


def test_tonight_keeps_itself_up_to_date_and_its_pictures_stay(console: Console) -> None:
    page = console.open()
    page.clock.install()
    page.reload()
    picture = page.locator(".film img").first
    picture.evaluate("each => { each.seen = true }")
    new_run(console.house, "running", age_s=1.0, done=7)

    page.clock.run_for(11_000)

    expect(page.get_by_text("7 videos made")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("2 workers render")
    expect(page.locator("#said")).to_contain_text("2 workers render")
    assert page.locator(".film img").first.evaluate("each => each.seen")  # the same element: nothing flickers
    assert console.troubles == []
    page.context.close()


def test_mistakes_and_plan_are_told_while_one_types_and_a_submit_leads_to_the_batch(console: Console) -> None:
    page = console.open("/console/submit")

    page.fill("#text", "jobs:\n  - shots: ['<img src=x onerror=alert(1)>']\n    fps: 3\n")
    expect(page.locator(".mistakes")).to_contain_text("jobs[0].fps")
    expect(page.locator(".mistakes .line")).to_have_text("3")

    page.fill("#text", "a boat\n<img src=x onerror=alert(1)>\n")
    page.get_by_role("button", name="Enqueue 2 videos").click()

    expect(page.get_by_role("status").first).to_contain_text("Enqueued.")
    expect(page.locator(".tile.waiting")).to_have_count(2)
    page.locator(".tile a").last.click()
    expect(page.locator("#stage")).to_contain_text("<img src=x onerror=alert(1)>")
    assert console.troubles == []
    page.context.close()


def test_a_click_on_a_poster_plays_above_the_contact_sheet(console: Console) -> None:
    page = console.open("/console/batches/b")

    page.get_by_role("link", name="made", exact=True).click()

    expect(page.locator("#stage video")).to_have_attribute("src", re.compile("/console/files/b/made.mp4"))
    assert page.url.endswith("/console/batches/b")
    page.context.close()


def test_without_scripts_everything_can_be_done(console: Console) -> None:
    page = console.open("/console/submit", java_script_enabled=False)

    page.fill("#text", "jobs:\n  - shots: []\n")
    page.get_by_role("button", name="Check").click()
    expect(page.locator(".mistakes")).to_contain_text("jobs[0].shots is empty")
    page.fill("#text", SCRIPT_FREE)
    page.get_by_role("button", name="Check").click()
    page.get_by_role("button", name="Enqueue 1 video").click()
    page.get_by_text("Cancel…").click()
    page.get_by_role("button", name="Cancel 1 open job").click()
    expect(page.get_by_role("status").first).to_contain_text("1 job cancelled.")
    page.get_by_role("button", name="Retry all").click()
    expect(page.get_by_role("status").first).to_contain_text("1 job enqueued again.")
    page.goto("/console/batches/b")
    page.get_by_role("link", name="made", exact=True).click()
    expect(page.locator("video")).to_be_visible()
    page.context.close()


def test_a_token_is_shown_once_and_every_page_is_reached_by_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    house = House(tmp_path)
    with serving(house, dispatcher_token=TOKEN) as served:
        console = Console(str(served.client.base_url).rstrip("/"), browser, house)
        page = console.open("/console/runs")
        expect(page.get_by_label("The dispatcher's token")).to_be_focused()
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Runs")

        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="To the content")).to_be_focused()
        for name in ("Nightreel", "Tonight", "Batches"):
            page.keyboard.press("Tab")
            expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Batches")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        assert console.troubles == []
        page.context.close()
    house.close()

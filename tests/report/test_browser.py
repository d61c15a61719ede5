"""The page in a real browser, where Chromium and playwright are installed."""

import csv
import shutil

import numpy as np
import pytest

from nlx.cleaning.table import label_table
from nlx.report.report import write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "<script>alert(1)</script>"
NAMES = ("ant", HOSTILE, "\u202etac", '"onclick="x()')


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, tmp_path):
    """The report of 300 labels, a third of them wrong, on a telephone; anything the browser complains of fails."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 300)
    given = np.where(np.arange(300) % 3 == 0, (true + 1) % 4, true)
    posterior = np.full((300, 4), 0.1) + 0.6 * np.eye(4)[true] * rng.uniform(0.5, 1, (300, 1))
    table = label_table(posterior / posterior.sum(axis=1, keepdims=True), given, class_names=NAMES)
    images = rng.integers(0, 255, (300, 8, 8, 3), dtype=np.uint8)
    path = tmp_path / "report.html"
    write_report(path, title=HOSTILE, facts={}, summary={}, plots=[], table=table, class_names=NAMES, inputs=images)
    opened = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    complaints = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append("dialog"))
    opened.goto(path.as_uri())
    yield opened
    opened.close()
    assert complaints == []


def test_the_list_filters_sorts_selects_and_downloads_by_keyboard(page):
    status = page.get_by_role("status")
    assert status.inner_text() == "1 to 50 of 300 in this page; 0 selected"
    assert page.locator("#list tbody tr").count() == page.locator("#list img").count() == 50
    page.get_by_role("combobox", name="Given").select_option(label=HOSTILE)
    page.get_by_label("only proposed changes").press("Space")
    assert status.inner_text().startswith("1 to ")
    assert {row.inner_text() for row in page.locator("#list tbody tr td:nth-child(4)").all()} == {HOSTILE}
    page.get_by_role("combobox", name="Order").select_option("row")
    rows = [int(cell.inner_text()) for cell in page.locator("#list tbody tr td:nth-child(3)").all()]
    assert rows == sorted(rows)
    page.get_by_role("checkbox", name=f"select row {rows[1]}", exact=True).press("Space")
    assert status.inner_text().endswith("; 1 selected")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").press("Enter")
    with open(download.value.path(), newline="") as file:
        (saved,) = csv.DictReader(file)
    assert (int(saved["row"]), saved["given"], saved["proposed"]) == (rows[1], HOSTILE, "ant")
    page.get_by_role("button", name="Show all").press("Enter")
    page.get_by_role("button", name="Next").press("Enter")
    assert status.inner_text() == "51 to 100 of 300 in this page; 1 selected"


def test_a_confusion_shows_its_examples_and_nothing_is_wider_than_a_telephone(page):
    cell = page.get_by_role("button", name=f"of ant to {NAMES[3]}", exact=False)
    count = int(cell.inner_text())
    cell.press("Enter")
    assert page.get_by_role("status").inner_text().startswith(f"1 to {count} of {count}, of 300")
    assert page.evaluate("document.activeElement.id") == "status"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert "\\u202etac" in page.get_by_role("combobox", name="Given").inner_text()

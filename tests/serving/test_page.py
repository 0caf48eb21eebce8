"""The page of `heartseg serve` in a browser, with late responses and with errors."""

from __future__ import annotations

import pytest

from heartseg.datasets import DATASETS
from tests.browser import chromium
from tests.serving.running import nifti, png, running
from tests.serving.test_app import AFFINE, four, heart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served():
    with running() as client:
        yield client


@pytest.fixture
def page(browser, served):
    opened = browser[0].new_page()
    faults = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(served.url)
    browser[1](opened.locator("#model")).to_contain_text("version")
    yield opened
    opened.close()
    assert faults == []


def choose(page, files):
    page.set_input_files(
        "#files",
        [
            {"name": name, "mimeType": "application/octet-stream", "buffer": content}
            for name, content in files.items()
        ],
    )


@pytest.mark.parametrize("aborting", [True, False])
def test_a_late_answer_never_shows_another_patient(page, browser, served, aborting):
    """The first patient's response arrives after the second patient's was shown."""
    expect, network = browser[1], served.network
    if not aborting:  # as if the response had been sent already
        page.evaluate("AbortController.prototype.abort = () => {}")
    network.hold = served.service.current.version
    network.waiting.clear()
    network.go.clear()
    with page.expect_request("**/predict") as first:
        choose(page, four(("patient0001",) * 4))
    assert network.waiting.wait(10)
    served.source.newest = served.source.version(f"{served.service.current.version}1")
    served.service.update()  # requests of this version are not held back
    choose(page, {"patient0002_2CH_ED.nii": nifti(heart()[1], AFFINE)})
    expect(page.locator(".card")).to_have_count(1)
    if aborting:
        network.go.set()
        assert first.value.failure
    else:
        with page.expect_event("requestfinished"):
            network.go.set()
        first.value.response().finished()
    page.wait_for_timeout(200)
    expect(page.locator(".card h2")).to_have_text("patient0002_2CH_ED.nii")
    expect(page.locator("body")).not_to_contain_text("patient0001")
    assert page.locator("#ef_percent").count() == 0
    with page.expect_download() as caught:
        page.locator(".download").click()
    assert caught.value.suggested_filename == "patient0002_2CH_ED_seg.nii.gz"


def test_nothing_of_the_previous_patient_stays_beside_an_error(page, browser):
    expect = browser[1]
    choose(page, four(("patient0001",) * 4))
    expect(page.locator("#ef_percent b")).to_contain_text(".")
    choose(page, {"letter.txt": b"no picture" * 50})
    expect(page.locator("#message")).to_contain_text("letter.txt")
    assert page.locator(".card, .number, .warnings").count() == 0
    assert "patient0001" not in page.inner_text("body")
    choose(page, {f"{k}.png": png(heart()[1]) for k in range(5)})
    expect(page.locator("#message")).to_contain_text("5 files")
    choose(page, {"x.nii": nifti(heart()[1], AFFINE)})
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator("#message")).to_be_empty()


def test_warnings_are_shown(page, browser):
    """A ventricle that leaves the image; images without a scale."""
    expect = browser[1]
    files = four()
    cut = heart(60, 40)[1][:, 25:]
    files["patient0007_2CH_ED.nii.gz"] = nifti(cut, AFFINE, ".nii.gz")
    choose(page, files)
    expect(page.locator("#clinical .warnings")).to_contain_text("cut off")
    expect(page.locator(".card").first.locator(".warnings")).to_contain_text("edge")
    expect(page.locator("#clinical .warnings")).to_have_css("display", "block")
    choose(page, four(ending=".png"))
    expect(page.locator("#ef_percent b")).to_contain_text(".")
    expect(page.locator("#clinical")).to_contain_text("no scale")
    assert page.locator("#edv_ml").count() == 0
    expect(page.locator(".card").first.locator(".warnings")).to_contain_text("mm:")
    assert "mm²" not in page.inner_text("#cards")
    page.fill("#row", "0.5")
    page.fill("#column", "0.75")
    choose(page, four(("patient0008",) * 4, ".png"))  # with the previous patient's scale
    expect(page.locator("#edv_ml")).to_be_visible()
    expect(page.locator(".card").first.locator(".warnings")).to_contain_text("0.5 mm × 0.75 mm")
    choose(page, four())
    expect(page.locator("#edv_ml")).to_be_visible()
    assert page.locator(".card .warnings li").count() == 0  # the scale of the files is used


def test_the_page_is_accessible(page, browser):
    """Text alternatives, announced progress, a complete legend, light and dark colours."""
    expect = browser[1]
    assert set(page.locator("#legend li").all_inner_texts()) == set(DATASETS["camus"].structures)
    expect(page.locator("#status")).to_have_attribute("aria-live", "polite")
    page.evaluate(
        "window.said = []; new MutationObserver(() => said.push(document.querySelector('#status')"
        ".textContent)).observe(document.querySelector('#status'), {childList: true})"
    )
    choose(page, {"x.nii": nifti(heart()[1], AFFINE)})
    picture = page.get_by_role("img", name="x.nii")
    name = picture.get_attribute("aria-label")
    assert all(word in name for word in ("LV", "LVepi", "LA", "mm²"))
    said = page.evaluate("said")
    assert "x.nii" in said[-2]
    assert said[-1].startswith("Segmented")
    assert page.locator("input:visible, select:visible").evaluate_all(
        "all => all.every(one => one.labels.length || one.ariaLabel)"
    )
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        seen.append(
            page.evaluate(
                "() => ['backgroundColor', 'color'].map(name => getComputedStyle(document.body)"
                "[name].match(/\\d+/g).slice(0, 3).reduce((sum, one) => sum + +one, 0) / 765)"
            )
        )
    (light, ink), (dark, chalk) = seen
    assert light - ink > 0.7
    assert chalk - dark > 0.7

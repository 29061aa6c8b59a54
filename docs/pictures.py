"""The pictures of the page in README and docs, of the default run: python train.py, then this.

python docs/pictures.py [RUN]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from manualbp.commands._report import report_of
from manualbp.training.runs import load_run

DOCS = Path(__file__).resolve().parent
FLAGS = ["--no-sandbox", "--disable-gpu"]

#: picture → width, height, colours, fragment of the page, what is shown of it
PICTURES = {
    "page": (1500, 940, "light", "#example=14&weight=1:3:12", None),
    "page-dark": (1500, 940, "dark", "#example=14&weight=1:3:12", None),
    "page-paths": (1280, 900, "light", "#example=14&neuron=1:3&step=11", "#neuron-panel"),
    "page-phone": (360, 780, "dark", "#example=14&neuron=1:3&step=11", None),
}


def main(where: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        file = Path(folder) / "report.html"
        file.write_text(report_of(load_run(where)), encoding="utf-8")
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name, (width, height, colours, fragment, part) in PICTURES.items():
            tab = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=colours,
                reduced_motion="reduce",
            )
            tab.goto(f"{file.as_uri()}{fragment}")
            path = DOCS / f"{name}.png"
            if part:
                tab.locator(part).screenshot(path=path)
            else:
                if width < 600:
                    tab.evaluate("document.getElementById('network-panel').scrollIntoView()")
                tab.screenshot(path=path)
            tab.close()
            print(path)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:2])

"""How long the page takes to repaint, in a browser, written to docs/page.md.

python benchmarks/page.py
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import tempfile
from pathlib import Path

import torch
from measure import table
from playwright.sync_api import Page, sync_playwright

from manualbp.see.page.html import page
from manualbp.training import mnist, network

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "page.md"
MARKS = "<!-- repaint:begin -->", "<!-- repaint:end -->"
ROUNDS = 20

#: frames as fast as they can be made, so that none waits for a screen
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-gpu-vsync", "--disable-frame-rate-limit"]

NETWORKS = {
    "784-16-16-10": ("sigmoid", "sigmoid", "squared_error"),
    "784-128-10": ("sigmoid", "sigmoid", "squared_error"),
    "784-800-800-10": ("relu", "identity", "cross_entropy"),
}

#: what is done, in the page; `i` counts the rounds
ACTIONS = {
    "nothing: what a frame and its measurement take": "0",
    "a step forwards or backwards": "click(i % 2 ? 'step-back' : 'step-forward')",
    "the nudge's slider moves": "slide('nudge', Math.sin(i))",
    "another weight": "line(i)",
    "another neuron": "neuron(i)",
    "another digit": "digit(i)",
    "gradient descent, this digit": "click(i % 2 ? 'undo' : 'descend')",
    "gradient descent, all 50 digits": "all(i)",
    "another moment of training": "slide('time', i % 2)",
}

PROGRAM = """async (i) => {
  const by = (selector) => [...document.querySelectorAll(selector)];
  const press = (element) => element.dispatchEvent(new MouseEvent('click', { bubbles: true }));
  const click = (id) => press(document.getElementById(id));
  const slide = (id, value) => { const range = document.getElementById(id); range.value = value;
    range.dispatchEvent(new Event('input', { bubbles: true })); };
  const pick = (found, i) => press(found[(7 * i + 3) % found.length]);
  const line = (i) => pick(by('[data-weight]:not([data-weight=""])'), i);
  const neuron = (i) => pick(by('[data-neuron]'), i), digit = (i) => pick(by('[data-example]'), i);
  const all = (i) => { manualbp.state.scope = 'all'; click(i % 2 ? 'undo' : 'descend'); };
  const act = (i) => ACTION;
  // After a frame has been painted, the next task begins.
  const painted = () => new Promise((done) => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(0);
  }));
  act(i);
  await painted();
}"""


def written(folder: Path, name: str) -> Path:
    """The page of a network with 50 digits and two moments of training."""
    torch.manual_seed(0)
    hidden, last, cost = NETWORKS[name]
    widths = [int(width) for width in name.split("-")]
    net = network.build(widths, hidden, last, 0.0, 0.0, "torch").eval()
    images, labels = mnist.load(mnist.REPOSITORY_DATA, train=False)
    before = {"earlier": {key: value * 0.9 for key, value in net.state_dict().items()}}
    file = folder / f"{name}.html"
    file.write_text(page(net, cost, images[:50], labels[:50], snapshots=before, rate=0.01))
    return file


def times_of(tab: Page, action: str) -> list[float]:
    """Milliseconds of the main thread's own processor time, which neighbours hardly change."""
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return 1e3 * next(each["value"] for each in found if each["name"] == "TaskDuration")

    program, times = PROGRAM.replace("ACTION", action), []
    for i in range(ROUNDS + 4):
        before = spent()
        tab.evaluate(program, i)
        times.append(spent() - before)
    return times[4:]  # the first ones are compiled


def measure() -> str:
    rows = [[action] for action in ACTIONS]
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for name in NETWORKS:
            tab = browser.new_page(viewport={"width": 1600, "height": 1000})
            tab.goto(f"{written(Path(folder), name).as_uri()}#example=0")
            for row, (action, program) in zip(rows, ACTIONS.items(), strict=True):
                times = sorted(times_of(tab, program))
                high = times[round(0.95 * (len(times) - 1))]
                row.append(f"{statistics.median(times):.1f} ({high:.1f})")
                print(f"{name}  {action}  {row[-1]}", flush=True)
            tab.close()
        version = browser.version
        browser.close()
    head = ["milliseconds: median (95 %)", *NETWORKS]
    how = (
        "Processor time of the page's main thread from the event to the painted frame: script, "
        f"style, layout and paint; {ROUNDS} times each, in Chromium {version} without a GPU, "
        "1600 × 1000, 50 digits: `python benchmarks/page.py`. "
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}."
    )
    return f"{table(head, rows)}\n\n{how}"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    begin, end = MARKS
    found = re.sub(f"{begin}.*{end}", f"{begin}\n\n{measure()}\n\n{end}", text, flags=re.S)
    PAGE.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main()

"""A viewer as its users start it, and a real Chromium that looks at it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.web.trip import fill

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


class Viewer:
    """`loci view` as a process of its own."""

    def __init__(self, file, *options):
        self.file = Path(file)  # or the address of a service
        folder = self.file.parent if self.file.exists() else None
        command = [sys.executable, "-m", "loci", "view", str(file), "--port", "0", "--no-open", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        self.said = self.process.stdout.readline()
        if "http://" not in self.said:
            self.process.kill()
            raise AssertionError(f"loci view did not start: {self.process.communicate()[1]}")
        self.address = [word for word in self.said.split() if word.startswith("http://")][-1].rstrip("/")
        self.port = int(self.address.rsplit(":", 1)[1])

    def stop(self):
        """As Ctrl+C does it: the exit code and what it said on stderr."""
        self.process.send_signal(2)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def look(tmp_path):
    """Start a viewer of a fresh memory, or of a given file; stopped when the test ends."""
    started = []

    def start(*options, file=None):
        viewer = Viewer(fill(tmp_path / "trip.db") if file is None else file, *options)
        started.append(viewer)
        return viewer

    yield start
    for viewer in started:
        if viewer.process.poll() is None:
            viewer.stop()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """One viewer for the tests of a module that change nothing another one looks at."""
    viewer = Viewer(fill(tmp_path_factory.mktemp("shown") / "trip.db"))
    yield viewer
    viewer.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """One headless Chromium for all tests of a run."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is missing; pip install '.[dev]'")
    if not (shutil.which(CHROMIUM) and shutil.which(DRIVER)):
        pytest.skip("no Chromium; get it with: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--lang=en-US",
    ):  # fmt: skip
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium):
    """The Chromium, at desktop width and in the light; what goes wrong in a page's scripts fails the test."""
    from tests.web.browsing import Browser

    chromium.get("about:blank")
    chromium.get_log("browser")
    chromium.get_log("performance")
    made = Browser(chromium)
    made.screen(1200, 900)
    made.light()
    yield made
    severe = [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    severe = [said for said in severe if "ERR_CONNECTION_" not in said]  # the viewer of the test was stopped before
    chromium.get("about:blank")
    assert severe == []

"""How a test looks at a page: by what is written on it and by the names that a screen reader says."""

import base64
import json
import os
from pathlib import Path

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
_PATIENCE = 20  # seconds after which a page that does not change is a failure
_SPACES = "return document.body.innerText.replace(/\\s+/g, ' ')"


class Browser:
    """A page in Chromium."""

    def __init__(self, driver):
        self.driver = driver

    # --- the window ---------------------------------------------------------------------------------------------

    def screen(self, width, height):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def light(self):
        self._scheme("light")

    def dark(self):
        self._scheme("dark")

    def _scheme(self, name):
        media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    # --- going and waiting --------------------------------------------------------------------------------------

    def go(self, address, *, until):
        self.driver.get(address)
        return self.reads(until)

    def until(self, true):
        """Wait for what a function of the page says."""

        def settled(_):
            try:
                return true()
            except StaleElementReferenceException:
                return False

        return WebDriverWait(self.driver, _PATIENCE, poll_frequency=0.05).until(settled)

    def reads(self, *words):
        """Wait until the page shows these words; its whole text."""
        try:
            self.until(lambda: all(word in self.text for word in words))
        except Exception as error:
            raise AssertionError(f"{words} did not appear on: {self.text}") from error
        return self.text

    def reads_no_more(self, word):
        self.until(lambda: word not in self.text)

    @property
    def text(self):
        """What is written on the page, spaces as one."""
        return self.driver.execute_script(_SPACES)

    # --- finding and doing --------------------------------------------------------------------------------------

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        self.until(lambda: self.all(css))
        return self.all(css)[0]

    def field(self, label):
        return self.one(f'input[aria-label="{label}"]')

    def fill(self, label, text):
        place = self.field(label)
        place.send_keys(Keys.CONTROL + "a")
        place.send_keys(text)
        return place

    def date(self, label, text):
        """Type a date as someone in the United States does: 2023-06-01 is 06012023."""
        year, month, day = text.split("-")
        self.field(label).send_keys(month + day + year)

    def button(self, name):
        """A button by the name that a screen reader says."""
        wanted = f'//button[@aria-label="{name}" or (not(@aria-label) and normalize-space(.)="{name}")]'
        self.until(lambda: any(one.is_displayed() for one in self.driver.find_elements(By.XPATH, wanted)))
        return next(one for one in self.driver.find_elements(By.XPATH, wanted) if one.is_displayed())

    def press(self, name):
        button = self.button(name)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        self.until(lambda: button.is_enabled())
        self.click(lambda: button)

    def click(self, find):
        """Click what a function finds, once it stands still: dialogs move while they open."""

        def clicked():
            try:
                find().click()
            except (ElementClickInterceptedException, ElementNotInteractableException):
                return False
            return True

        self.until(clicked)

    def key(self, *keys):
        """Keys to whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    @property
    def focused(self):
        """The accessible name of what has the focus, as the browser computes it."""
        return self.driver.switch_to.active_element.accessible_name

    # --- what the browser knows ---------------------------------------------------------------------------------

    def asked(self):
        """Every address that the pages asked for since the last call, sockets too."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                found.append(message["params"]["url"])
        return found

    def picture(self, name, *, height):
        """Keep a picture of the page for the docs, when there is none or LOCI_PICTURES asks for it anew."""
        target = PICTURES / f"view-{name}.png"
        if target.exists() and not os.environ.get("LOCI_PICTURES"):
            return target
        self.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
        width = self.driver.execute_script("return document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": clip})
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(base64.b64decode(shot["data"]))
        return target

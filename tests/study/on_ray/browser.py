"""A headless Chromium, driven over its debugging protocol: just enough to look at a page."""

import asyncio
import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

WIDTH, HEIGHT = 1400, 900


def chromium() -> str | None:
    """The browser's program, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def running_browser(program: str) -> Iterator[str]:
    """Runs the browser; gives the address of its first page's debugging socket."""
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        flags += [
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            f"--window-size={WIDTH},{HEIGHT}",
        ]
        process = subprocess.Popen(
            [program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            port = next(
                found[1] for line in process.stderr if (found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line))
            )
            yield f"http://127.0.0.1:{port}/json/list"
        finally:
            process.kill()
            process.wait()


def look_at(
    pages: str, url: str, *, cookie: tuple[str, str], words: str, picture: Path, seconds: float
) -> str:
    """Opens a page, waits until its text matches `words`, and takes a picture.

    Args:
        pages: address that lists the browser's pages.
        cookie: name and value, set before the page is opened.

    Returns:
        the page's text; after `seconds`, whatever it shows.
    """
    return asyncio.run(_look_at(pages, url, cookie, words, picture, seconds))


async def _look_at(
    pages: str, url: str, cookie: tuple[str, str], words: str, picture: Path, seconds: float
) -> str:
    async with aiohttp.ClientSession() as session:
        async with session.get(pages) as answer:
            found = await answer.json()
        socket = next(page["webSocketDebuggerUrl"] for page in found if page["type"] == "page")
        async with session.ws_connect(socket, max_msg_size=0) as connection:
            number = 0

            async def call(method: str, **parameters: Any) -> dict[str, Any]:
                nonlocal number
                number += 1
                await connection.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
                while True:
                    message = json.loads((await connection.receive()).data)
                    if message.get("id") == number:
                        return message.get("result", {})

            name, value = cookie
            await call("Network.setCookie", name=name, value=value, url=url)
            await call("Page.navigate", url=url)
            deadline = time.monotonic() + seconds
            text = ""
            while time.monotonic() < deadline and not re.search(words, text):
                await asyncio.sleep(0.5)
                answer = await call("Runtime.evaluate", expression="document.body.innerText")
                text = answer.get("result", {}).get("value", "") or ""
            shot = await call("Page.captureScreenshot", format="png")
            picture.write_bytes(base64.b64decode(shot["data"]))
            return text

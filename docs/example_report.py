"""Makes docs/example-report.html and .png: `python -m docs.example_report`; it takes a minute and Chromium.

The page is that of the pruning run of `make demo`, with the very command that stands in sample_models/demo.sh.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs" / "example-report.html", ROOT / "docs" / "example-report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_SIZE = (1280, 2000)


def demo_command() -> list[str]:
    """The words of the demo's pruning run."""
    text = (ROOT / "sample_models" / "demo.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^run (compress prune .*)$", text, re.MULTILINE)
    assert found is not None, "sample_models/demo.sh has no pruning run"
    return shlex.split(found[1].replace("$out", "demo-out"))


def make(folder: Path) -> Path:
    """The page, made below an empty folder, so that its paths are those of this tree."""
    shutil.copytree(ROOT / "sample_models", folder / "sample_models")
    (folder / "demo-out").mkdir()
    words = demo_command()
    subprocess.run([sys.executable, "-m", "compressor", *words[1:]], cwd=folder, check=True)
    return folder / words[words.index("--report") + 1]


def photograph(page: Path, picture: Path, folder: Path) -> None:
    """The top of the page as a browser shows it on a desk.

    Raises:  SystemExit without a browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no picture of the page: none of {', '.join(BROWSERS)} is on the PATH")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
    shot = [f"--screenshot={picture}", f"--window-size={_SIZE[0]},{_SIZE[1]}", f"--user-data-dir={folder / 'profile'}"]
    subprocess.run([browser, *flags, *shot, page.as_uri()], check=True, capture_output=True, timeout=120)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(make(folder), PAGE)
        photograph(PAGE, PICTURE, folder)


if __name__ == "__main__":
    main()

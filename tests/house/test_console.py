"""The console's files: small, alone, and without anything that its Content-Security-Policy would have to allow."""

import re

from console import INDEX, files
from tests.house.sources import ROOT

PAGE = ROOT / "console/page"
MOST_BYTES = 250 * 1024
SCRIPTS = [file for file in sorted(PAGE.iterdir()) if file.suffix == ".js"]
IMPORT = re.compile(r'^(?:import|export)\b[^;"]*?\bfrom "([^"]+)"|\bimport\(? ?"([^"]+)"', re.MULTILINE)
# Each of them makes markup or code of text.
MAKES_MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|DOMParser|createContextualFragment"
)


def test_the_page_is_small() -> None:
    assert sum(len(file.content) for file in files().values()) <= MOST_BYTES


def test_the_page_holds_no_script_and_no_style() -> None:
    text = (PAGE / INDEX).read_text()
    assert not re.findall(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all('src="' in tag for tag in re.findall(r"<script[^>]*>", text))
    assert re.findall(r"<script[^>]*></script>", text) == re.findall(r"<script[^>]*>.*?</script>", text, re.DOTALL)


def test_the_page_loads_only_its_own_files() -> None:
    named = set(re.findall(r'(?:src|href)="([^"#]+)"', (PAGE / INDEX).read_text()))
    assert named <= files().keys(), (
        "A third-party file needs its licence, version and hash listed, and a test of that list."
    )


def test_a_script_imports_only_its_neighbours() -> None:
    names = [
        (script.name, first or second) for script in SCRIPTS for first, second in IMPORT.findall(script.read_text())
    ]
    assert names
    assert not [(script, name) for script, name in names if not name.startswith("./") or name[2:] not in files()]


def test_no_script_makes_markup_or_code_of_text() -> None:
    found = [(script.name, text) for script in SCRIPTS for text in MAKES_MARKUP.findall(script.read_text())]
    assert SCRIPTS
    assert not found, f"Show it with textContent: text of the server stays text: {found}"


def test_every_file_is_loaded() -> None:
    texts = "\n".join(file.read_text() for file in PAGE.iterdir())
    assert not [name for name in files() if name != INDEX and f"{name}" not in texts]

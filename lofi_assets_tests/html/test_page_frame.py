"""Every page that the project writes fits a phone, has no script or a known one, and takes nothing from elsewhere."""

import hashlib
import re
from base64 import b64encode
from html import unescape

from lofi_assets.html.frame import framed, players
from lofi_assets.html.player import SCRIPT
from lofi_assets.listening.server import PAGE, PAGE_FILES
from lofi_assets.pages.markdown import markdown_page
from lofi_assets_tests.conftest import REPOSITORY

PHONE = '<meta name="viewport" content="width=device-width, initial-scale=1">'


def test_a_page_is_laid_out_for_the_width_of_the_screen_and_has_no_script() -> None:
    page = framed(title="a < b", body=players([("step 80", "a%20b.mp3")]))
    assert PHONE in page and "<title>a &lt; b</title>" in page
    assert "<script" not in page and not re.search(r"https?://", page)
    assert 'src="a%20b.mp3"' in page and 'preload="none"' in page


def test_a_page_with_players_has_one_script_and_a_policy_against_any_other() -> None:
    page = framed(title="a", body="<p>b</p>", scripted=True)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    policies = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert scripts == [SCRIPT] and len(policies) == 1
    digest = b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = unescape(policies[0])
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert page.index("Content-Security-Policy") < page.index("<script>")
    assert not re.search(r"https?://", page)


def test_the_listening_test_is_laid_out_for_the_width_of_the_screen() -> None:
    files = {name: (PAGE / name).read_text(encoding="utf-8") for name in PAGE_FILES}
    assert PHONE in files["listen.html"] and "box-sizing: border-box" in files["listen.css"]
    assert not re.search(r"https?://", "".join(files.values()))


def test_a_table_of_markdown_says_in_every_cell_what_its_column_is() -> None:
    page = markdown_page("| gate | why |\n|---|---|\n| `audio.x` | loud |\n\n# Ä, b!\n\n# Ä, b!", title="t", home="../")
    assert '<tr id="audio.x">' in page and '<td data-label="why">loud</td>' in page
    assert 'id="ä-b"' in page and 'id="ä-b-1"' in page


def test_markdown_of_others_stays_text() -> None:
    text = "<script>alert(1)</script> [a](javascript:alert(1))\n\n| a |\n|---|\n| <img src=x onerror=y> |\n"
    page = markdown_page(text, title="<x>", home="./")
    assert "<script>" not in page and "<img" not in page and 'href="javascript' not in page and "<title><x>" not in page


def test_every_page_of_the_docs_is_shown() -> None:
    docs = REPOSITORY / "docs"
    for path in docs.rglob("*.md"):
        assert "<h1" in markdown_page(path.read_text(encoding="utf-8"), title=path.stem, home="./"), path

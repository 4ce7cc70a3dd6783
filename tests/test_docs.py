"""The code that users are shown runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/recipes.md", "docs/cli.md", "docs/robustness.md"]


def _blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str) -> None:
    blocks = _blocks(page)
    assert blocks
    for block in blocks:
        quick = re.sub(r"steps=\d+", "steps=6", block)
        exec(compile(quick, page, "exec"), {})


@pytest.mark.parametrize(
    "page", [*PAGES, "docs/attach.md", "docs/tasks.md", "docs/index.md", "docs/design.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_recipes_page_lists_every_recipe() -> None:
    import tacit

    text = (ROOT / "docs/recipes.md").read_text()
    for name in tacit.RECIPES:
        assert f"`{name}" in text, name

"""docs/spaces.md names all that a space may state, and the numbers of the recipes."""

import inspect
import re
from pathlib import Path

from search_spaces import recipes
from study.planning import space

PAGE = (Path(__file__).parents[3] / "docs" / "spaces.md").read_text(encoding="utf-8")


def test_every_name_that_is_read_from_a_space_is_on_the_page():
    source = inspect.getsource(space)
    read = re.findall(r'getattr\(module, "(\w+)"', source) + re.findall(r"module\.([A-Z]\w+)", source)
    assert {"BASE", "ON", "SPACE", "ROLES", "METRIC", "QUESTION", "SEEDS", "SEARCH", "recipe"} <= set(read)
    assert [name for name in read if not re.search(rf"`[^`]*\b{name}\b|^{name} =", PAGE, re.MULTILINE)] == []


def test_the_recipe_for_few_images_is_described_as_it_is():
    small = recipes.SMALL_EPOCHS
    assert f"fewer than {recipes.SMALL_IMAGES:,} training images" in PAGE
    first, *middle, last = small
    words = f"{first[1]} up to {first[0]} images, "
    words += "".join(f"{epochs} up to {most}, " for most, epochs in middle) + f"else {last[1]}"
    assert words in PAGE

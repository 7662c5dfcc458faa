"""docs/spaces.md names all that a space may state, and the numbers of the recipes."""

import inspect
import re
from functools import partial
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", ["thesis", "figures", "photographs"])
def test_the_table_of_recipes_states_their_numbers(name: str):
    recipe = {
        "thesis": partial(recipes.thesis, "fcn32s"),
        "figures": partial(recipes.figures, "fcn8s"),
        "photographs": recipes.photographs,
    }[name]
    raw, pretrained = recipe(pretrained=False), recipe(pretrained=True)
    (row,) = re.findall(rf"^\| `{name}` \| .*$", PAGE, re.MULTILINE)
    _, _, _, epochs, crop, batch, rate, _ = (cell.strip() for cell in row.split("|"))
    assert epochs.startswith(f"{raw['epochs']}, {pretrained['epochs']}")
    assert (crop, batch) == (str(raw["crop_size"]), str(raw["batch_size"]))
    rates = [float(word) for word in re.findall(r"\d[\d.e-]*", rate.partition("(")[0])]
    assert set(rates) == {raw["learning_rate"], pretrained["learning_rate"]}

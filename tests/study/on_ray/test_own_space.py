"""A search space outside the project, on a data set of one's own, on two nodes."""

import pytest

from study.frame import load, read_manifest
from study.planning.space_files import write_template

pytestmark = pytest.mark.cluster

NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}
BASE = """BASE = {
    "width": 0.25,
    "crop_size": 32,
    "batch_size": 4,
    "epochs": tools.EPOCHS,
    "learning_rate": 0.02,"""


@pytest.mark.timeout(600)
def test_a_space_of_ones_own_on_data_of_ones_own(cluster, start_driver, tiny_data, tiny_weights, tmp_path):
    folder = tmp_path / "spaces_of_mine"
    (folder / "tools").mkdir(parents=True)
    (folder / "tools" / "__init__.py").write_text("EPOCHS = 2\n")
    space = write_template(str(folder / "mine"))
    text = space.read_text().replace("BASE = {", BASE)
    text = text.replace("from ray import tune", "import tools\nfrom ray import tune")
    # Two trials, one for each node.
    text = text.replace("[0.0, 5e-4, 5e-3]", "[0.0]")
    space.write_text(text)
    node = cluster.add_node(**NODE)
    flags = ["--space", str(space), "--data", "folder", "--data-root", str(tiny_data), "--scheduler", "none"]
    flags += ["--weights", str(tiny_weights), "--gpus-per-trial", "0", "--storage", str(tmp_path)]
    driver = start_driver(flags)
    output, _ = driver.communicate(timeout=400)
    cluster.remove_node(node)
    assert driver.returncode == 0, output
    study = tmp_path / "mine-tiny"
    trials, _ = load(study)
    assert list(trials["status"]) == ["completed"] * 2
    assert (trials["epochs_budget"] == 2).all()
    manifest = read_manifest(study)
    assert manifest["space"] == "mine"
    assert manifest["space_source"] == text
    assert len(manifest["hardware"]["nodes"]) == 2

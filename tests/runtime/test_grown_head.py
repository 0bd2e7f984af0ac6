"""Beginning with a run of other classes."""

import unicodedata
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import CLASSES, SHAPE, TINY, MemoryLoader, run

from edgeprune.training.reports import TerminalReport
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.grown_head import grow_head, head_tensors
from edgeprune_runtime.networks.models import create_model, head_of
from edgeprune_runtime.networks.warm_start import load_weights
from edgeprune_runtime.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

KNOWN = ("ant", "bee", "caf\u00e9", "dog")


@pytest.fixture(scope="module")
def known_run(tmp_path_factory):
    """A finished run that knows the names of its four classes."""
    folder = tmp_path_factory.mktemp("known") / "run"
    run(folder, replace(TINY, epochs=1), provenance={"class_names": KNOWN})
    return folder


def grown(path, names, model="resnet8"):
    """A fresh network, and the same with weights of a run for classes of these names."""
    torch.manual_seed(5)
    network = create_model(model, len(names), 16)
    drawn = head_tensors(network, len(names))
    load_weights(network, path)
    return drawn, network, grow_head(network, drawn, path, names)


@pytest.mark.parametrize(
    "names",
    [
        ("dog", "ant", unicodedata.normalize("NFD", "caf\u00e9"), "bee"),
        (*KNOWN, "eel", "fly"),
        ("eel", "dog", "fly"),
        ("eel", "fly", "gnu", "hen"),
    ],
)
def test_rows_of_known_classes_are_kept_and_others_drawn(known_run, names):
    path = known_run / "model.safetensors"
    drawn, network, facts = grown(path, names)
    head, layer = head_of(network)
    given = load_file(path)
    for place, name in enumerate(names):
        plain = unicodedata.normalize("NFC", name)
        for key in ("weight", "bias"):
            own = f"{head}.{key}"
            wanted = given[own][KNOWN.index(plain)] if plain in KNOWN else drawn[own][place]
            assert torch.equal(getattr(layer, key)[place], wanted), name
    assert facts.new == tuple(name for name in names if name in ("eel", "fly", "gnu", "hen"))
    assert (*facts.kept, *facts.new) == (*(n for n in names if n in facts.kept), *facts.new)
    assert len(facts.dropped) == CLASSES - len(facts.kept)


def test_the_same_classes_are_taken_as_they_are(known_run):
    path = known_run / "model.safetensors"
    names = tuple(unicodedata.normalize("NFD", name) for name in KNOWN)
    _, network, facts = grown(path, names)
    assert facts is None
    given = load_file(path)
    assert all(torch.equal(value, given[key]) for key, value in network.state_dict().items())


def test_weights_that_know_no_names_are_taken_as_before(known_run, tmp_path):
    save_file(load_file(known_run / "model.safetensors"), tmp_path / "plain.safetensors")
    drawn, network, facts = grown(tmp_path / "plain.safetensors", (*KNOWN, "eel"))
    assert facts is None
    assert all(torch.equal(network.state_dict()[name], value) for name, value in drawn.items())


def test_a_row_that_is_not_finite_is_named(known_run, tmp_path):
    from safetensors import safe_open

    with safe_open(known_run / "model.safetensors", "pt") as content:
        facts, tensors = content.metadata(), {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    name = next(key for key in tensors if tensors[key].shape[:1] == (CLASSES,) and tensors[key].ndim == 2)
    tensors[name][1, 0] = float("nan")
    save_file(tensors, tmp_path / "bad.safetensors", facts)
    with pytest.raises(TrainingError, match=rf"bad\.safetensors: {name} holds NaN"):
        grown(tmp_path / "bad.safetensors", (*KNOWN, "eel"))


def test_a_run_begins_with_the_folder_of_another(known_run, tmp_path, capsys):
    events, terminal = [], TerminalReport(1, "")

    def report(event):
        events.append(event)
        terminal(event)

    train(
        MemoryLoader(),
        replace(TINY, epochs=1),
        tmp_path / "run",
        num_classes=6,
        image_shape=SHAPE,
        init=known_run,
        provenance={"class_names": ("eel", *KNOWN, "fly")},
        on_event=report,
    )
    (begun,) = [event for event in events if event["event"] == "init"]
    assert begun["fresh"] == ()
    line = "classes of the last layer: 4 kept by name, 2 new (eel, fly)"
    assert begun["fitted"] == [line]
    line = f"edgeprune: {line}"
    assert capsys.readouterr().err.splitlines().count(line) == 1


def test_a_run_that_is_not_finished_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    with pytest.raises(TrainingError, match="other holds no trained model to begin with; finish the run"):
        run(tmp_path / "run", init=tmp_path / "other")

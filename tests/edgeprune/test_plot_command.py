"""Curves of runs, as `edgeprune plot` draws them."""

import pytest
from PIL import Image

from edgeprune.commands.training import plot as plot_command


@pytest.fixture
def run(train, npz):
    return train("run", "--epochs", 2, "--test", npz)[3]


@pytest.mark.slow
def test_curves_of_runs(edgeprune, run, tmp_path):
    assert edgeprune("plot", run) == (0, f"{run / 'curves.png'}\n", "")
    with Image.open(run / "curves.png") as picture:
        assert picture.size[0] > picture.size[1] > 300
    first = (run / "curves.png").read_bytes()
    edgeprune("plot", run)
    assert (run / "curves.png").read_bytes() == first
    code, _, err = edgeprune("plot", run, run, "-o", tmp_path / "both.svg")
    assert (code, err) == (0, "")
    assert (tmp_path / "both.svg").read_text().count("<svg") == 1


METRICS = '{"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.5, "test_loss": null, "test_accuracy": null}'


@pytest.mark.first_are_quick(2)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; give the folder of a run"),
        ("", "no epoch is complete yet"),
        ("{", "not the metrics of a run, or damaged"),
        ("[1]", "not the metrics of a run, or damaged"),
        ('{"epoch": 1}', "not the metrics of a run, or damaged"),
        (
            METRICS.replace("0.5", '"0.5"', 1),
            "not the metrics of a run, or damaged (metrics.train_loss is '0.5'",
        ),
        (METRICS.replace("0.5", "NaN", 1), "not the metrics of a run, or damaged (NaN is no number of JSON)"),
        (
            METRICS.replace("0.5", "[" * 99_999, 1),
            "not the metrics of a run, or damaged (nested deeper than 64)",
        ),
    ],
)
def test_metrics_that_cannot_be_drawn(edgeprune, tmp_path, content, message):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    code, _, err = edgeprune("plot", tmp_path)
    assert code == 1
    assert f"{tmp_path / 'metrics.jsonl'}: {message}" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("content", [None, b"", b"{", bytes(9)])
def test_lost_metrics_of_a_run_with_a_checkpoint_have_a_remedy(edgeprune, tmp_path, content):
    for name in ("checkpoint-0002.json", "model.safetensors"):
        (tmp_path / name).touch()
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    code, _, err = edgeprune("plot", tmp_path)
    assert (code, len(err.splitlines())) == (1, 1)
    assert err.startswith(f"edgeprune: error: {tmp_path / 'metrics.jsonl'}: ")
    assert err.endswith("; train with --resume to make it again from the checkpoint beside it\n")


@pytest.mark.slow
def test_pictures_that_cannot_be_written(edgeprune, run, tmp_path):
    assert edgeprune("plot", run, run)[0] == 2
    code, _, err = edgeprune("plot", run, "-o", tmp_path / "a.gif")
    assert code == 2
    assert "a picture's name ends in .png, .svg, .pdf" in err
    code, _, err = edgeprune("plot", run, "-o", tmp_path / "no" / "a.png")
    assert code == 1
    assert "there is no folder" in err
    assert plot_command.command.name == "plot"

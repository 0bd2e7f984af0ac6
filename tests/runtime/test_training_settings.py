import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from training_runs import CLASSES, TINY, run

from edgeprune_formats import ConfigError
from edgeprune_runtime.networks.models import MODEL_NAMES
from edgeprune_runtime.training import Cadence, TrainConfig
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.progress.schedule import Schedule, learning_rate
from edgeprune_runtime.training.progress.tally import Tally
from edgeprune_runtime.training.run_folder.checkpoint import load_checkpoint
from edgeprune_runtime.training.run_folder.description import as_begun
from edgeprune_runtime.training.step import Learner, update_average

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_bfloat16_autocast_trains(tmp_path):
    config = replace(TINY, epochs=1, precision="bfloat16")
    (line,) = run(tmp_path, config).metrics
    assert math.isfinite(line["train_loss"])
    weights = {name: t for name, t in load_checkpoint(tmp_path).tensors.items() if name.endswith(".weight")}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "vgg"}, "unknown model 'vgg'"),
        ({"epochs": 0}, "`TrainConfig.epochs` is 0"),
        ({"batch_size": 0}, "batch_size` is 0"),
        ({"lr": 0.0}, "lr` is 0.0"),
        ({"lr": math.nan}, "lr` is nan"),
        ({"lr": math.inf}, "lr` is inf"),
        ({"momentum": 1.0}, "momentum` is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay` is -1.0"),
        ({"ema": 1.0}, "ema` is 1.0"),
        ({"ema": 0.0}, "ema` is 0.0"),
        ({"seed": -1}, "seed` is -1"),
        ({"epochs": 2.5}, "epochs` is 2.5; it must be an integer"),
        ({"epochs": "3"}, "epochs` is '3'; it must be an integer"),
        ({"epochs": True}, "epochs` is True; it must be an integer"),
        ({"batch_size": 8.0}, "batch_size` is 8.0; it must be an integer"),
        ({"accumulate": 1.5}, "accumulate` is 1.5"),
        ({"seed": 0.5}, "seed` is 0.5"),
        ({"lr": "0.1"}, "lr` is '0.1'; it must be a number"),
        ({"lr": None}, "lr` is None; it must be a number"),
        ({"ema": "0.9"}, "ema` is '0.9'; it must be a number or None"),
        ({"freeze": 1.0}, "freeze` is 1.0; it must be True or False or an integer"),
        ({"freeze": 0}, "freeze` is 0; it must be at least 1"),
        ({"freeze": -1}, "freeze` is -1; it must be at least 1"),
        ({"stem": "large"}, "stem` is 'large'; it must be one of auto, imagenet, small"),
        ({"model": "torchvision:"}, "unknown model 'torchvision:'; choose one of shufflenet_v2"),
        ({"model": "a b:c"}, "or torchvision:NAME, timm:NAME or package.module:function"),
        ({"nesterov": "no"}, "nesterov` is 'no'; it must be True or False"),
        ({"model": 18}, "model` is 18; it must be a string"),
        ({"device": 0}, "device` is 0; it must be a string"),
        ({"precision": None}, "precision` is None; it must be one of auto"),
        ({"adversarial": 8}, "adversarial` is 8; it must be a string or None"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"precision": "float16"}, "precision` is 'float16'; it must be one of auto, float32, bfloat16"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**change)


def test_numbers_of_numpy_are_numbers():
    config = TrainConfig(epochs=np.int64(3), lr=np.float32(0.5), weight_decay=0, ema=np.float64(0.5))
    assert (config.epochs, config.lr, config.ema) == (3, 0.5, 0.5)
    assert json.loads(json.dumps(asdict(config)))["epochs"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 2.5}, "steps` is 2.5; it must be an integer or None"),
        ({"steps": 0}, "the steps between two checkpoints must be positive; raise `Cadence.steps`"),
        ({"seconds": "5"}, "seconds` is '5'; it must be a number or None"),
        ({"seconds": -1}, "the time between two checkpoints must be positive; raise `Cadence.seconds`"),
    ],
)
def test_cadences_that_are_none(change, message):
    with pytest.raises(ConfigError, match=message):
        Cadence(**change)


def test_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="device cuda:99 does not exist"):
        place(TrainConfig(device="cuda:99"))


RESNETS = ("resnet8", "resnet9", "resnet18", "torchvision:resnet50", "timm:resnet18.a1_in1k")


def test_auto_on_a_cpu(monkeypatch):
    def chosen(model):
        placement = place(TrainConfig(model=model))
        assert placement.device == torch.device("cpu")
        return placement.precision

    others = ("mobilenet_v2", "torchvision:resnext50_32x4d", "timm:efficientnet_b0", "resnets:resnet")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("edgeprune_runtime.training.placement.cpu_features", lambda: {"avx512_bf16"})
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert {chosen(model) for model in (*RESNETS, *others)} == {"float32"}
    # The processor multiplies matrices of bfloat16, and may do so.
    amx = {"avx512_bf16", "amx_bf16", "amx_tile"}
    monkeypatch.setattr("edgeprune_runtime.training.placement.cpu_features", lambda: amx)
    assert {chosen(model) for model in RESNETS} == {"bfloat16"}
    assert {chosen(model) for model in others} == {"float32"}
    limits = [("avx512_core_amx", "bfloat16"), ("DEFAULT", "bfloat16"), ("AVX2", "float32"), ("", "bfloat16")]
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        for limit, wanted in limits:
            monkeypatch.setenv(name, limit)
            assert chosen("resnet9") == wanted
    assert place(TrainConfig(model="resnet9", precision="bfloat16")).precision == "bfloat16"


def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    auto = TrainConfig(model="resnet8")
    assert as_begun(auto, tmp_path / "nothing") == auto
    for recorded, device, kept in [
        ("bfloat16", "cpu", "bfloat16"),
        ("float32", "cpu", "float32"),
        ("bfloat16", "cuda:0", "auto"),
        ("float8", "cpu", "auto"),
    ]:
        record = {"config": {"precision": recorded, "device": device}}
        (tmp_path / "config.json").write_text(json.dumps(record))
        assert as_begun(auto, tmp_path).precision == kept
        named = replace(auto, precision="float32")
        assert as_begun(named, tmp_path) == named


def test_a_run_goes_on_in_its_precision(tmp_path, monkeypatch):
    pays = [True]
    monkeypatch.setattr("edgeprune_runtime.training.placement._bfloat16_pays", lambda *_: pays[0])
    config = replace(TINY, epochs=1, precision="auto")
    run(tmp_path, config)
    # On another machine.
    pays[0] = False
    run(tmp_path, replace(config, epochs=2), resume=True)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["precision"] == "bfloat16"


def test_learning_rate():
    rates = [learning_rate(step, 1000, 0.1) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1 / 50)
    assert rates[49] == rates[50] == max(rates) == 0.1
    assert rates[525] == pytest.approx(0.05)
    assert 0 < rates[-1] < 1e-6
    assert rates[50:] == sorted(rates[50:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 30, 100])
def test_learning_rate_of_short_runs(steps):
    rates = [learning_rate(step, steps, 0.1) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert max(rates) == 0.1
    assert rates.index(0.1) <= 20


def test_the_average_forgets_the_initial_weights():
    average, model = (torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1)) for _ in range(2))
    with torch.no_grad():
        average[0].weight.fill_(1.0)
        model[0].weight.fill_(0.0)
    model[1].running_mean.fill_(3.0)
    update_average(average, model, 0, 0.999)
    assert average[0].weight.item() == pytest.approx(0.1)
    assert average[1].running_mean.item() == 3.0
    update_average(average, model, 10**6, 0.9)
    assert average[0].weight.item() == pytest.approx(0.09)


def test_the_tally_does_not_depend_on_when_it_is_drained():
    losses = torch.rand(20, generator=torch.Generator().manual_seed(0))
    one, other = Tally(), Tally()
    for loss in losses:
        one.add(loss, torch.tensor(3), 7)
        other.add(loss, torch.tensor(3), 7)
        other.drain()
        other = Tally(**json.loads(json.dumps(other.sums())))
    one.drain()
    assert one.sums() == other.sums()
    assert (one.steps, one.images, one.correct) == (20, 140, 60)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODEL_NAMES)
def test_weight_decay_spares_biases_and_norms(model):
    learner = Learner(replace(TINY, model=model), place(TINY), CLASSES, 16)
    norms = {
        id(p) for m in learner.model.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()
    }
    biases = {id(p) for name, p in learner.model.named_parameters() if name.endswith("bias")}
    decayed, *spared = learner._optimizer.param_groups
    trained = {id(p) for p in learner.model.parameters() if p.requires_grad}
    of_spared = [id(p) for group in spared for p in group["params"]]
    assert {*of_spared} == (norms | biases) & trained
    assert {group["weight_decay"] for group in spared} == {0}
    assert decayed["weight_decay"] == TINY.weight_decay
    assert len(decayed["params"]) + len(of_spared) == len(trained)


def test_a_schedule_after_another_is_one_of_its_own():
    schedule = Schedule([2, 5], 30, 0.1)
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert rates[:60] == [learning_rate(step, 60, 0.1) for step in range(60)]
    assert rates[60:] == [learning_rate(step, 90, 0.1) for step in range(90)]


@pytest.mark.parametrize("name", ["model", "device", "adversarial", "class_weights", "precision", "epochs"])
def test_a_long_value_is_shortened_in_messages(name):
    with pytest.raises(ConfigError) as told:
        TrainConfig(**{name: "a\n" * 10_000})
    assert len(str(told.value)) < 400
    assert str(told.value).isprintable()

import math

import pytest

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.scores import SCORES
from edgeprune.masks.config import MaskConfig
from edgeprune.packs.config import METHODS, BuildConfig
from edgeprune.scoring.config import ScoreConfig
from edgeprune_formats import ConfigError

SMALL, LARGE = (3, 32, 32), (3, 224, 224)


@pytest.mark.parametrize(
    ("method", "components", "images"),
    [("energy", 0.5, 0.0), ("random", 0.0, 0.5), ("lf", 0.5, 0.0), ("je", 0.0, 0.5), ("jelf", 0.5, 0.5)],
)
def test_each_method_drops_its_default_shares(method, components, images):
    config = BuildConfig(method=method, codec="sparse-f32")
    assert (config.components_dropped, config.images_dropped) == (components, images)
    given = BuildConfig(method=method, freq_prune=0.3, sample_prune=0.2)
    assert (given.components_dropped, given.images_dropped) == (0.3, 0.2)
    nothing = BuildConfig(method=method, freq_prune=0, sample_prune=0)
    assert (nothing.components_dropped, nothing.images_dropped) == (0, 0)


def test_the_methods_learn_masks_and_score_images_as_the_paper_says():
    assert {name for name, method in METHODS.items() if method.learned_masks} == {"lf", "jelf"}
    assert {name for name, method in METHODS.items() if method.scored_images} == {"je", "jelf"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BuildConfig, {"method": "best"}),
        (BuildConfig, {"method": 0.5}),
        (BuildConfig, {"freq_prune": math.inf}),
        (BuildConfig, {"seed": 2**63}),
        (ScoreConfig, {"every": 0}),
        (ScoreConfig, {"every": 11, "epochs": 10}),
        (CoresetConfig, {"score": "luck"}),
        (CoresetConfig, {"sampling": "top"}),
        (CoresetConfig, {"beta": 1.0}),
        (CoresetConfig, {"beta": math.nan}),
        (CoresetConfig, {"strata": 0}),
        (CoresetConfig, {"tau": 1.1}),
        (CoresetConfig, {"gamma": 0.0}),
        (CoresetConfig, {"gamma": math.nan}),
        (CoresetConfig, {"window": 0}),
        (MaskConfig, {"epochs": 0}),
        (MaskConfig, {"batch_size": 0}),
        (MaskConfig, {"lr": 0.0}),
        (MaskConfig, {"lr": math.inf}),
        (MaskConfig, {"k": -1}),
        (MaskConfig, {"precision": "float16"}),
    ],
)
def test_a_value_out_of_range_is_named(kind, options):
    with pytest.raises(ConfigError, match=next(iter(options))) as error:
        kind(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (MaskConfig, "epochs", 2.5),
        (MaskConfig, "batch_size", 16.0),
        (MaskConfig, "k", 3.5),
        (ScoreConfig, "epochs", 2.5),
        (ScoreConfig, "every", 1.5),
        (ScoreConfig, "seed", 0.5),
        (ScoreConfig, "compile", 1),
        (CoresetConfig, "strata", 9.5),
        (CoresetConfig, "window", 2.5),
        (CoresetConfig, "class_balance", "yes"),
        (CoresetConfig, "tau", "high"),
        (BuildConfig, "seed", 1.5),
        (BuildConfig, "size", 32.5),
        (BuildConfig, "skip_bad", 1),
        (BuildConfig, "quality", "best"),
        (BuildConfig, "tile", 8),
    ],
)
def test_a_value_of_another_type_is_named(kind, field, value):
    with pytest.raises(ConfigError, match=rf"^`{kind.__name__}.{field}` is {value!r}; it must be "):
        kind(**{field: value})


def test_a_whole_number_may_stand_for_a_float():
    assert BuildConfig(freq_prune=0, quality=80).quality == 80


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_an_accuracy_weight_out_of_range_is_named(weight):
    with pytest.raises(ConfigError, match="accuracy_weight` must be at least 0"):
        MaskConfig(accuracy_weight=weight)


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("lr", -1.0), ("device", "tpu"), ("seed", -1)])
def test_the_other_settings_of_a_scoring_run_are_checked_as_those_of_a_training_run(field, value):
    with pytest.raises(ConfigError, match=field):
        ScoreConfig(**{field: value}).training("resnet8")


def test_what_a_scoring_run_uses_depends_on_the_images():
    config = ScoreConfig()
    assert (config.model_for(SMALL), config.every_for(10, SMALL)) == ("resnet18", 5)
    assert (config.model_for(LARGE), config.every_for(1000, LARGE)) == ("resnet34", 2)
    # The shorter side counts.
    assert config.model_for((3, 300, 63)) == "resnet18"
    assert ScoreConfig(epochs=3).every_for(10, SMALL) == 3
    given = ScoreConfig(model="resnet8", every=1)
    assert (given.model_for(LARGE), given.every_for(1000, LARGE)) == ("resnet8", 1)


def test_the_defaults_are_the_papers():
    coreset, masks = CoresetConfig(), MaskConfig()
    assert (coreset.tau, coreset.gamma, coreset.window, coreset.strata) == (2 / 3, 0.99, 3, 50)
    assert (coreset.score, coreset.sampled_by) == ("joint_entropy", "ccs")
    assert (masks.epochs, masks.batch_size) == (300, 128)
    assert coreset.score in SCORES

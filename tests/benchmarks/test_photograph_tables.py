"""Tables and sentences of ``edgeprune bench photographs``."""

import pytest

from edgeprune_benchmarks.documentation.readme import _last_shown
from edgeprune_benchmarks.photographs.tables import minutes_to, photograph_sentences, photograph_tables


def row(side, seed, curve, size, epochs, build_minutes=None):
    place = {"model": "mobilenet_v2", "start": "scratch", "side": side, "seed": seed}
    facts = {"epochs": epochs, "steps": 630, "images_seen": 1800, "startup_minutes": 0.5, "bytes": size}
    facts |= {"core_share": 0.9, "build_minutes": build_minutes}
    return {**place, "curve": curve, **facts}


@pytest.fixture
def rows():
    return [
        row("short", 0, [[1.0, 0.5], [1.5, 0.6]], 3e6, 3),
        row("short", 1, [[1.0, 0.5], [1.5, 0.55]], 3e6, 3),
        row("folder", 0, [[3.0, 0.4], [6.0, 0.6], [9.5, 0.5]], 33e6, 9),
        row("folder", 1, [[3.0, 0.4], [6.5, 0.6], [9.5, 0.6]], 33e6, 9),
        row("sizes 48:2,72:1", 0, [[1.0, 0.5], [3.0, 0.6]], 3e6, 5, build_minutes=0.26),
        row("sizes 48:8 epochs=12 lr=0.01", 0, [[1.0, 0.4], [3.0, 0.5]], 3e6, 12),
    ]


def test_the_table_says_who_reached_the_target_and_when(rows):
    settings = {"threads": 1, "size": 96, "held_out": False, "batch_size": 32, "quality": 75.0}
    settings |= {"pretrain_steps": 1500, "lr": 0.05, "ema": 0.99}
    images = {"classes": 6, "train_images": 2017, "test_images": 507}
    lines = photograph_tables({"settings": settings, "rows": rows, **images})
    assert "mobilenet_v2 from scratch; accuracy to reach, by seed, %: 60.0, 60.0." in lines
    assert lines[-4:] == [
        "| JPEG files, torchvision's recipe | 9 | 2 of 2 | 6.2 (6.0 to 6.5) | 1.00 (1.00 to 1.00) | "
        "60.0 (60.0 to 60.0) | 55.0 (50.0 to 60.0) | 9.5 (9.5 to 9.5) | 630 | 3 | 33.00 |",
        "| pack | 3 | 1 of 2 | 1.5 | 0.25 | 57.5 (55.0 to 60.0) | 57.5 (55.0 to 60.0) | "
        "1.5 (1.5 to 1.5) | 630 | 30 | 3.00 |",
        "| pack, `--resolution-schedule 48:2,72:1` | 5 | 1 of 1 | 3.0 | 0.50 | "
        "60.0 (60.0 to 60.0) | 60.0 (60.0 to 60.0) | 3.0 | 630 | 12 | 3.00 |",
        "| pack, `--resolution-schedule 48:8 --lr 0.01` | 12 | 0 of 1 | - | - | 50.0 (50.0 to 50.0) | "
        "50.0 (50.0 to 50.0) | 3.0 | 630 | 12 | 3.00 |",
    ]
    assert "507 to test on; 6 classes, at 96 pixels; 1 thread on 1 core;" in lines[0]
    assert "quality 75, and its rows have `--lr 0.05 --ema 0.99` if they name no others. Building" in lines[0]
    assert "Building the pack took 0.3 minutes, which are not counted." in lines[0]
    assert "The runs got 90.0 (90.0 to 90.0)% of the CPU time of their cores." in lines[0]
    assert minutes_to([[1.0, 0.5]], 0.6) is None


def test_a_sentence_says_what_the_longest_schedule_gains(rows):
    ours = "mobilenet_v2` from scratch, trained from a pack, `--resolution-schedule 48:8 --lr 0.01`"
    best = "reaches the best accuracy of JPEG files and torchvision's recipe"
    [line] = photograph_sentences({"rows": rows})
    assert line.startswith(
        f"On photographs, `{ours} and 12 epochs, {best} with no seed, from 0.091 of the bytes,"
    )
    assert line.endswith("and ends at 50.0 (50.0 to 50.0)% against 50.0 (50.0 to 50.0)%.")
    rows.append(row("sizes 48:8 epochs=12 lr=0.01", 1, [[1.0, 0.4], [2.6, 0.6], [3.0, 0.5]], 3e6, 12))
    [line] = photograph_sentences({"rows": rows})
    assert f"{best} in 0.40 of the minutes, with 1 of 2 seeds, from" in line
    assert line.endswith("against 55.0 (50.0 to 60.0)%.")
    [line] = photograph_sentences({"rows": rows[:5]})
    assert f"`--resolution-schedule 48:2,72:1` and 5 epochs, {best} in 0.50 of the minutes, from" in line
    assert photograph_sentences({"rows": rows[:4]}) == []
    assert photograph_sentences({"rows": [rows[3], row("sizes 48:1", 0, [[1.0, 0.5]], 3e6, 2)]}) == []
    # Those from scratch alone.
    assert photograph_sentences({"rows": [{**one, "start": "pretrained"} for one in rows]}) == []


def test_of_two_schedules_with_as_many_epochs_one_is_told_of():
    rows = [row("folder", 0, [[2.0, 0.5]], 33e6, 2)]
    rows += [row(f"sizes {sizes}:1", 0, [[1.0, end]], 3e6, 4) for sizes, end in ((32, 0.5), (48, 0.6))]
    [line] = photograph_sentences({"rows": rows})
    assert "`--resolution-schedule 48:1` and 4 epochs, " in line
    assert "ends at 60.0 (60.0 to 60.0)%" in line


def test_of_two_rates_that_get_equally_far_the_faster_counts():
    rows = [row("folder", 0, [[5.0, 0.6]], 33e6, 2), row("folder peer-lr=4", 0, [[9.0, 0.6]], 33e6, 2)]
    rows.append(row("sizes 48:1", 0, [[1.0, 0.6]], 3e6, 4))
    for order in (rows, [rows[1], rows[0], rows[2]]):
        assert "in 0.20 of the minutes" in photograph_sentences({"rows": order})[0]


def test_a_pack_is_measured_against_the_better_rate_of_the_folder():
    rows = [
        row("folder", 0, [[3.0, 0.4], [6.0, 0.6]], 33e6, 2),
        row("folder peer-lr=4", 0, [[3.0, 0.5], [5.0, 0.7]], 33e6, 2),
        row("sizes 48:2", 0, [[1.0, 0.65], [2.0, 0.75]], 3e6, 5),
    ]
    settings = {"threads": 1, "size": 96, "held_out": False, "batch_size": 32, "quality": 75.0}
    settings |= {"pretrain_steps": 1500, "lr": 0.05, "ema": 0.99}
    images = {"classes": 6, "train_images": 2017, "test_images": 507}
    lines = photograph_tables({"settings": settings, "rows": rows, **images})
    assert "mobilenet_v2 from scratch; accuracy to reach, by seed, %: 70.0." in lines
    assert lines[-3].startswith("| JPEG files, torchvision's recipe | 2 | 0 of 1 | - | - |")
    four_times = "| JPEG files, torchvision's recipe, 4 times its learning rate | 2 | 1 of 1 | 5.0 | 1.00 |"
    assert lines[-2].startswith(four_times)
    assert lines[-1].startswith("| pack, `--resolution-schedule 48:2` | 5 | 1 of 1 | 2.0 | 0.40 |")
    [sentence] = photograph_sentences({"rows": rows})
    assert "torchvision's recipe at the better of 2 learning rates in 0.40 of the minutes" in sentence
    assert "against 70.0 (70.0 to 70.0)%" in sentence


def test_the_short_form_names_the_last_command_of_its_rows():
    runs = [
        {"command": f"photographs --start {start}", "date": "d", "commit": "c"}
        for start in ("scratch", "pretrained")
    ]
    result = {**runs[1], "earlier": [runs[0]]}
    assert _last_shown(result, "photographs")["command"].endswith("scratch")
    assert _last_shown(result, "storage")["command"].endswith("pretrained")
    assert _last_shown({**runs[0], "earlier": [runs[1]]}, "photographs") == runs[0]

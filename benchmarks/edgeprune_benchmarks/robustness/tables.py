"""The tables of robustness, from the JSON of ``bench robustness``."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from edgeprune.text import count_text

from ..harness.markdown import Column, mean_and_range, render
from .published import PUBLISHED
from .recipes import row_name
from .report import interval

__all__ = [
    "ablation_table",
    "control_table",
    "cost_table",
    "distortion_table",
    "groups_of",
    "linf_short",
    "linf_table",
    "norms_table",
    "pooled",
    "pruned_table",
    "seeds_table",
]

Results = dict[str, Any]
Row = dict[str, Any]
Share = tuple[float, list[float], int]
Group = tuple[str, list[Row]]
EPS = (0.5, 1, 2, 4, 8)
DISTORTION = ("edr", "random", "gradient", "curvature")
SHORT = ("natural", "LF", "JE", "JELF", "random")


def groups_of(results: Results) -> list[Group]:
    """Return the networks of a result in groups that a table gives one line: one method, ratio and model."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results["rows"]:
        groups.setdefault((row["row"]["label"], row["pruned"], row["model"]), []).append(row)
    models = {model for *_, model in groups}
    return [
        (row_name(label, pruned) + (f", {model}" if len(models) > 1 else ""), rows)
        for (label, pruned, model), rows in groups.items()
    ]


def _cells(row: Row, attack: str, eps: float | None) -> Iterator[Row]:
    for cell in row["report"]["rows"]:
        near = eps is None if cell["eps"] is None else eps is not None and abs(cell["eps"] - eps) < 1e-9
        if cell["attack"] == attack and near:
            yield cell


def pooled(rows: list[Row], attack: str, eps: float | None) -> Share | None:
    """Return the accuracy under an attack over all images of some networks, its interval, and the images."""
    return _pool([(cell["accuracy"], cell["images"]) for row in rows for cell in _cells(row, attack, eps)])


def _pool(cells: list[tuple[float, int]]) -> Share | None:
    """Return the share of all images from shares of parts of them; None where there is no part."""
    images = sum(count for _, count in cells)
    right = round(sum(share * count for share, count in cells))
    return (right / images, interval(right, images), images) if cells else None


def _text(found: Share | None) -> str:
    if found is None:
        return "-"
    share, (low, high), _ = found
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _printed(attack: str, rows: list[Row]) -> str:
    by_ratio = PUBLISHED.get(attack, {}).get(rows[0]["row"]["label"], {})
    value = by_ratio.get(rows[0]["pruned"])
    return "-" if value is None else f"{value:.1f}"


def _intro(results: Results) -> str:
    scale, protocol = results["scale"], results["protocol"]
    done, planned = len(results["rows"]), results["planned"]
    left = f" {done} of {planned} networks are measured." if done < planned else ""
    attacked = min(protocol["images"], results["test_images"])
    return (
        f"{scale['model']}, {scale['iterations']:,} steps of {scale['batch_size']} on "
        f"all or a part of {results['train_images']:,} images ({results['source']}), "
        f"{count_text(scale['seeds'], 'seed')}; {attacked:,} of {results['test_images']:,} test images "
        f"attacked. Accuracy in %, with Wilson's 95% interval.{left}"
    )


def _named(title: str) -> Column:
    return Column(title, 0)


def _under(attack: str, eps: float, title: str) -> Column:
    """Return a column of accuracies under an attack in Linf, at a budget in units of 1/255."""
    return Column(title, lambda group: _text(pooled(group[1], attack, eps / 255)))


def _clean(results: Results) -> Column:
    images = results["test_images"]
    return Column("clean", lambda group: _text(_pool([(row["test_accuracy"], images) for row in group[1]])))


_AUTO_ATTACK = _under("AutoAttack Linf", 8, "AutoAttack 8/255")


def _paper(attack: str, title: str) -> Column:
    return Column(title, lambda group: _printed(attack, group[1]))


def linf_table(results: Results) -> list[str]:
    """Return clean accuracy, the curve over eps, AutoAttack at 8/255, and what the paper prints beside it."""
    note = "Columns with a budget alone are PGD-100, in pixels; clean accuracy is on all test images."
    columns = [
        _named("trained on"),
        _clean(results),
        _paper("clean", "the paper's clean"),
        *(_under("PGD-100", eps, f"{eps:g}/255") for eps in EPS),
        _AUTO_ATTACK,
        _under("PGD-20 normalized", 8, "PGD-20 at 8/255 in normalized units"),
        _paper("AutoAttack Linf", "the paper's AutoAttack 8/255"),
    ]
    return render(columns, groups_of(results), f"{_intro(results)} {note}")


def linf_short(results: Results) -> list[str]:
    """Return the first columns of `linf_table`, of the rows that a short page has room for."""
    groups = [group for group in groups_of(results) if group[1][0]["row"]["label"] in SHORT]
    columns = [_named("trained on"), _clean(results), *_curve(2, 4), _AUTO_ATTACK]
    return render(columns, groups, _intro(results))


def ablation_table(results: Results) -> list[str]:
    """Return a line for each value of a setting of JELF at 50%, and how many reports are valid."""
    groups = [(rows[0]["row"]["label"], rows) for _, rows in groups_of(results)]
    columns = [_named("JELF at 50% with"), _clean(results), *_curve(0.5, 1, 2, 4), _AUTO_ATTACK]
    return [*render(columns, groups, _intro(results)), "", _valid(results)]


def _curve(*budgets: float) -> list[Column]:
    return [_under("PGD-100", eps, f"PGD-100 {eps:g}/255") for eps in budgets]


def _controls(row: Row) -> list[Row]:
    """Return the controls of a network's reports, with and without pruning at inference."""
    return [*row["report"]["controls"], *(row["pruned_inference"] or {"controls": []})["controls"]]


def _valid(results: Results) -> str:
    valid = sum(all(control["passed"] for control in _controls(row)) for row in results["rows"])
    return f"{valid} of {len(results['rows'])} reports are valid by their controls."


def cost_table(results: Results) -> list[str]:
    """Return what training on perturbed images buys, and what it costs beside natural training."""
    natural = mean(row["train_seconds"] for row in results["rows"] if row["key"] == "natural")

    def cost(group: Group) -> Any:
        return mean(row["train_seconds"] for row in group[1]) / natural

    columns = [_named("trained on"), Column("time to train", cost, "{:.2f}x"), _clean(results)]
    columns += [*_curve(2, 4, 8), _AUTO_ATTACK]
    return [*render(columns, groups_of(results), _intro(results)), "", _valid(results)]


def seeds_table(results: Results) -> list[str]:
    """Return what a network's seed changes: means over seeds, and the lowest and highest."""
    scale, attacked = results["scale"], results["protocol"]["images"]
    intro = (
        f"{scale['model']}, {scale['iterations']:,} steps of {scale['batch_size']}. Clean accuracy is on all "
        f"{results['test_images']:,} test images, accuracy under PGD-100 on {attacked:,} of them, the same "
        "for all networks. In %, mean (lowest to highest) of the networks."
    )
    columns = [
        _named("trained on"),
        Column("networks", lambda group: len(group[1])),
        Column("clean", lambda group: mean_and_range([row["test_accuracy"] for row in group[1]])),
        *map(_over_seeds, EPS),
    ]
    return [*render(columns, groups_of(results), intro), "", _valid(results)]


def _over_seeds(eps: float) -> Column:
    def cell(group: Group) -> str:
        found = [cell for row in group[1] for cell in _cells(row, "PGD-100", eps / 255)]
        return mean_and_range([cell["accuracy"] for cell in found])

    return Column(f"{eps:g}/255", cell)


def norms_table(results: Results) -> list[str]:
    """Return accuracies under other norms, each beside what the paper prints."""
    note = "After the slash is what the paper prints for ResNet-18; it does not name the budgets."
    columns = [
        _named("trained on"),
        _beside_paper("AutoAttack L2", 0.5, "AutoAttack L2 0.5"),
        _beside_paper("AutoAttack L1", 12.0, "AutoAttack L1 12"),
        _beside_paper("L1-APGD", 12.0, "L1-APGD 12"),
        _beside_paper("sparse", 20.0, "sparse, 20 pixels"),
        Column("C&W L2 within 0.5", _within),
        Column("median L2 distance of C&W", _distance, "{:.3f}"),
    ]
    return render(columns, groups_of(results), f"{_intro(results)} {note}")


def _beside_paper(attack: str, size: float, title: str) -> Column:
    return Column(
        title, lambda group: f"{_text(pooled(group[1], attack, size))} / {_printed(attack, group[1])}"
    )


def _nearest(group: Group) -> list[Row]:
    return [cell for row in group[1] for cell in _cells(row, "C&W L2", None)]


def _within(group: Group) -> str:
    return _text(_pool([(cell["within"]["accuracy"], cell["images"]) for cell in _nearest(group)]))


def _distance(group: Group) -> float | None:
    found = [cell["median_size"] for cell in _nearest(group) if cell["median_size"] is not None]
    return median(found) if found else None


def pruned_table(results: Results) -> list[str]:
    """Return what pruning at inference seems to buy against an attack that does not know of it, and does."""
    groups = [
        (name, [row["pruned_inference"]["rows"] for row in rows])
        for name, rows in groups_of(results)
        if rows[0]["pruned_inference"]
    ]
    first = groups[0][1][0] if groups else []
    note = (
        f"Accuracy in % on {first[0]['images'] if first else 0:,} images for each network. Before the slash: "
        "PGD-100 with all its steps on the network alone. After it: PGD-100 through the pruning."
    )
    columns = [_named("trained on"), *(_pruned(number, cell["eps"]) for number, cell in enumerate(first))]
    return render(columns, groups, note)


def _pruned(number: int, eps: float) -> Column:
    def cell(group: tuple[str, list[list[Row]]]) -> str:
        cells = [rows[number] for rows in group[1]]
        found = [[(cell[kind], cell["images"]) for cell in cells] for kind in ("unaware", "adaptive")]
        return " / ".join(_text(_pool(shares)) for shares in found)

    return Column(f"{255 * eps:g}/255" if eps else "no attack", cell)


def control_table(results: Results) -> list[str]:
    """Return for every network which controls it failed, and what it cost."""
    columns = [
        Column("trained on", _network),
        Column("seed", "seed"),
        Column("controls", _failed),
        Column("training, s", "train_seconds", "{:.0f}"),
        Column("attacks, s", "report.seconds", "{:.0f}"),
        Column("forward passes, M", _forwards, "{:.2f}"),
        Column("weights", "report.weights", "{:.12}"),
    ]
    return [*render(columns, results["rows"]), *_cross_checks(results)]


def _network(row: Row) -> str:
    name = row_name(row["row"]["label"], row["pruned"])
    return f"{name} ({row['row']['score']})" if row["row"]["label"] == "CCSFEM" else name


def _failed(row: Row) -> str:
    failed = [f"{c['name']}: {c['detail']}" for c in _controls(row) if not c["passed"]]
    return f"not valid: {'; '.join(failed)}" if failed else "valid"


def _forwards(row: Row) -> Any:
    return sum(cell["forwards"] for cell in row["report"]["rows"]) / 1e6


def _cross_checks(results: Results) -> Iterator[str]:
    for row in results["rows"]:
        checked = row["cross_check"]
        if checked:
            yield ""
            yield (
                f"AutoAttack at {255 * checked['eps']:g}/255 on the network with weights "
                f"{checked['weights'][:12]}, {checked['images']} images: {checked['ours']} resist with our "
                f"loop, {checked['direct']} with the library's own; {checked['differ']} verdicts differ."
            )


def distortion_table(results: Results) -> list[str]:
    """Return the expected distortion rate of the loss and its two terms, and how wide the minimum is."""
    first, steps = results["rows"][0], results["steps"]
    intro = (
        f"Loss in nats on {results['plan']['images']:,} training images, and how much it rises at half a "
        f"step along {results['plan']['directions']} filter-normalized directions. The L2 columns are on "
        f"{first['distortion_images']:,} test images: expected distortion rate under an L2 attack / in a "
        "random direction / gradient term / curvature term."
    )
    groups: dict[str, list[Row]] = {}
    for row in results["rows"]:
        groups.setdefault(row_name(row["label"], row["pruned"]), []).append(row)
    columns = [
        _named("trained on"),
        Column("loss", _loss, "{:.3f}"),
        Column("rise", lambda group: _rise(group, steps), "{:.2f}"),
        *(_distorted(number, rate["eps"]) for number, rate in enumerate(first["distortion"])),
    ]
    return render(columns, groups.items(), intro)


def _rise(group: Group, steps: list[float]) -> Any:
    """Return how much the loss rises from no step to half a step, mean over the lines."""
    near = [number for number, step in enumerate(steps) if abs(abs(step) - 0.5) < 1e-6]
    lines = [line for row in group[1] for line in row["along"]]
    return mean(line[number] - line[len(line) // 2] for line in lines for number in near)


def _loss(group: Group) -> Any:
    """Return the loss without a step."""
    return mean(line[len(line) // 2] for row in group[1] for line in row["along"])


def _distorted(number: int, eps: float) -> Column:
    def cell(group: Group) -> str:
        rates = [row["distortion"][number] for row in group[1]]
        return " / ".join(f"{mean(rate[part] for rate in rates):.2f}" for part in DISTORTION)

    return Column(f"L2 {eps:g}", cell)

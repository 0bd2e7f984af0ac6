"""The tables of docs/results/robustness.md, from the JSON of ``bench robustness``."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from ..harness.markdown import table
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
EPS = (0.5, 1, 2, 4, 8)
DISTORTION = ("edr", "random", "gradient", "curvature")
NORMS = ("AutoAttack L2", "AutoAttack L1", "L1-APGD", "sparse")


def groups_of(results: Results) -> list[tuple[str, list[Row]]]:
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


def pooled(rows: list[Row], attack: str, eps: float | None) -> tuple[float, list[float], int] | None:
    """Return the accuracy under an attack over all images of some networks, its interval, and the images."""
    cells = [cell for row in rows for cell in _cells(row, attack, eps)]
    if not cells:
        return None
    images = sum(cell["images"] for cell in cells)
    resist = round(sum(cell["accuracy"] * cell["images"] for cell in cells))
    return resist / images, interval(resist, images), images


def _text(found: tuple[float, list[float], int] | None) -> str:
    if found is None:
        return "-"
    share, (low, high), _ = found
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _printed(attack: str, rows: list[Row]) -> str:
    by_ratio = PUBLISHED.get(attack, {}).get(rows[0]["row"]["label"], {})
    value = by_ratio.get(rows[0]["pruned"])
    return "-" if value is None else f"{value:.1f}"


def _head(results: Results) -> str:
    scale, protocol = results["scale"], results["protocol"]
    done, planned = len(results["rows"]), results["planned"]
    left = f" {done} of {planned} networks so far." if done < planned else ""
    attacked = min(protocol["images"], results["test_images"])
    return (
        f"{scale['model']}, {scale['iterations']:,} steps of {scale['batch_size']} on "
        f"{results['train_images']:,} images ({results['source']}) or part of them, "
        f"{scale['seeds']} seed(s); {attacked:,} of {results['test_images']:,} test images attacked. "
        f"In %, with Wilson's 95% interval.{left}"
    )


def linf_table(results: Results) -> list[str]:
    """Return clean accuracy, the curve over eps, AutoAttack at 8/255, and what the paper prints beside it."""
    rows = []
    for name, group in groups_of(results):
        rows.append(
            [
                name,
                _text(_clean(results, group)),
                _printed("clean", group),
                *(_text(pooled(group, "PGD-100", eps / 255)) for eps in EPS),
                _text(pooled(group, "AutoAttack Linf", 8 / 255)),
                _text(pooled(group, "PGD-20 normalized", 8 / 255)),
                _printed("AutoAttack Linf", group),
            ]
        )
    header = ["trained on", "clean", "the paper's clean", *(f"{eps:g}/255" for eps in EPS)]
    last = ["AutoAttack 8/255", "PGD-20 at 8/255 in normalized units", "the paper's AutoAttack 8/255"]
    note = "The columns of eps are PGD-100 in pixels; clean accuracy is on all test images."
    return [f"{_head(results)} {note}", "", *table([*header, *last], rows)]


def linf_short(results: Results) -> list[str]:
    """Return the first columns of `linf_table`, of the rows that a summary has room for."""
    groups = [
        (name, group)
        for name, group in groups_of(results)
        if group[0]["row"]["label"] in ("natural", "LF", "JE", "JELF", "random")
    ]
    return _few_columns(results, groups, "trained on", (2, 4))


def ablation_table(results: Results) -> list[str]:
    """Return a line for each value of a setting of JELF at 50%, and how many reports are valid."""
    groups = [(group[0]["row"]["label"], group) for _, group in groups_of(results)]
    lines = _few_columns(results, groups, "JELF at 50% with", (0.5, 1, 2, 4))
    return [*lines, "", f"{_valid(results)} of {len(results['rows'])} reports are valid by their controls."]


def _few_columns(
    results: Results, groups: list[tuple[str, list[Row]]], first: str, curve: tuple[float, ...]
) -> list[str]:
    rows = [
        [
            name,
            _text(_clean(results, group)),
            *(_text(pooled(group, "PGD-100", eps / 255)) for eps in curve),
            _text(pooled(group, "AutoAttack Linf", 8 / 255)),
        ]
        for name, group in groups
    ]
    header = [first, "clean", *(f"PGD-100 {eps:g}/255" for eps in curve), "AutoAttack 8/255"]
    return [_head(results), "", *table(header, rows)]


def _valid(results: Results) -> int:
    judged = [[row["report"], row["pruned_inference"] or {"controls": []}] for row in results["rows"]]
    return sum(all(c["passed"] for part in parts for c in part["controls"]) for parts in judged)


def cost_table(results: Results) -> list[str]:
    """Return what training on perturbed images buys, and what it costs beside natural training."""
    natural = mean(row["train_seconds"] for row in results["rows"] if row["key"] == "natural")
    rows = []
    for name, group in groups_of(results):
        cost = mean(row["train_seconds"] for row in group) / natural
        curve = [_text(pooled(group, "PGD-100", eps / 255)) for eps in (2, 4, 8)]
        under = _text(pooled(group, "AutoAttack Linf", 8 / 255))
        rows.append([name, f"{cost:.2f}x", _text(_clean(results, group)), *curve, under])
    header = ["trained on", "time to train", "clean", *(f"PGD-100 {eps}/255" for eps in (2, 4, 8))]
    believed = f"{_valid(results)} of {len(results['rows'])} reports are valid by their controls."
    return [_head(results), "", *table([*header, "AutoAttack 8/255"], rows), "", believed]


def seeds_table(results: Results) -> list[str]:
    """Return what a network's seed changes: means over seeds, and the lowest and highest."""
    rows = []
    for name, group in groups_of(results):
        cells = [_spread([row["test_accuracy"] for row in group])]
        for eps in EPS:
            found = [cell["accuracy"] for row in group for cell in _cells(row, "PGD-100", eps / 255)]
            cells.append(_spread(found))
        rows.append([name, str(len(group)), *cells])
    scale, attacked = results["scale"], results["protocol"]["images"]
    head = (
        f"{scale['model']}, {scale['iterations']:,} steps of {scale['batch_size']}; clean accuracy on all "
        f"{results['test_images']:,} test images, under PGD-100 on the same {attacked:,} of them; mean over "
        "networks, and in brackets the lowest and highest, in %."
    )
    believed = f"{_valid(results)} of {len(results['rows'])} reports are valid by their controls."
    header = ["trained on", "networks", "clean", *(f"{eps:g}/255" for eps in EPS)]
    return [head, "", *table(header, rows), "", believed]


def _spread(shares: list[float]) -> str:
    return f"{100 * mean(shares):.1f} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def _clean(results: Results, rows: list[Row]) -> tuple[float, list[float], int]:
    """Return the accuracy on all test images, its interval, and how many they are, of some networks."""
    images = results["test_images"] * len(rows)
    right = round(sum(row["test_accuracy"] for row in rows) * results["test_images"])
    return right / images, interval(right, images), images


def norms_table(results: Results) -> list[str]:
    """Return accuracies under other norms, each beside what the paper prints."""
    sizes = {"AutoAttack L2": 0.5, "AutoAttack L1": 12.0, "L1-APGD": 12.0, "sparse": 20.0}
    rows = []
    for name, group in groups_of(results):
        found = {attack: _text(pooled(group, attack, sizes[attack])) for attack in NORMS}
        cells = [f"{text} / {_printed(attack, group)}" for attack, text in found.items()]
        near = [cell for row in group for cell in _cells(row, "C&W L2", None)]
        distances = [cell["median_size"] for cell in near if cell["median_size"] is not None]
        images = sum(cell["images"] for cell in near)
        within = round(sum(cell["within"]["accuracy"] * cell["images"] for cell in near))
        rows.append(
            [
                name,
                *cells,
                _text((within / images, interval(within, images), images) if images else None),
                f"{median(distances):.3f}" if distances else "-",
            ]
        )
    header = ["trained on", "AutoAttack L2 0.5", "AutoAttack L1 12", "L1-APGD 12", "sparse, 20 pixels"]
    last = ["C&W L2 within 0.5", "median L2 distance of C&W"]
    note = "Each beside what the paper prints for ResNet-18 at a budget that it does not name."
    return [f"{_head(results)} {note}", "", *table([*header, *last], rows)]


def pruned_table(results: Results) -> list[str]:
    """Return what pruning at inference seems to buy against an attack that does not know of it, and does."""
    groups = [
        (name, [row["pruned_inference"]["rows"] for row in group])
        for name, group in groups_of(results)
        if group[0]["pruned_inference"]
    ]
    rows = []
    for name, found in groups:
        columns = [[cells[number] for cells in found] for number in range(len(found[0]))]
        rows.append([name, *(" / ".join(_both(column)) for column in columns)])
    first = groups[0][1][0] if groups else []
    header = ["trained on", *(f"{255 * cell['eps']:g}/255" if cell["eps"] else "no attack" for cell in first)]
    note = (
        f"Right, in %, of {first[0]['images'] if first else 0:,} images for each network: after PGD-100 on "
        "the bare network, all steps, / after PGD-100 through the pruning."
    )
    return [note, "", *table(header, rows)]


def _both(cells: list[Row]) -> Iterator[str]:
    images = sum(cell["images"] for cell in cells)
    for kind in ("unaware", "adaptive"):
        right = round(sum(cell[kind] * cell["images"] for cell in cells))
        yield _text((right / images, interval(right, images), images))


def control_table(results: Results) -> list[str]:
    """Return for every network which controls it failed, and what it cost."""
    rows = []
    for row in results["rows"]:
        report = row["report"]
        judged = [*report["controls"], *((row["pruned_inference"] or {}).get("controls", []))]
        failed = [f"{c['name']}: {c['detail']}" for c in judged if not c["passed"]]
        name = row_name(row["row"]["label"], row["pruned"])
        score = row["row"]["score"]
        rows.append(
            [
                f"{name} ({score})" if row["row"]["label"] == "CCSFEM" else name,
                str(row["seed"]),
                f"not valid: {'; '.join(failed)}" if failed else "valid",
                f"{row['train_seconds']:.0f}",
                f"{report['seconds']:.0f}",
                f"{sum(cell['forwards'] for cell in report['rows']) / 1e6:.2f}",
                report["weights"][:12],
            ]
        )
    header = ["trained on", "seed", "controls", "training, s", "attacks, s", "forward passes, M", "weights"]
    return [*table(header, rows), *_cross_checks(results)]


def _cross_checks(results: Results) -> Iterator[str]:
    for row in results["rows"]:
        checked = row["cross_check"]
        if checked:
            yield ""
            yield (
                f"AutoAttack at {255 * checked['eps']:g}/255 on the network with weights "
                f"{checked['weights'][:12]}, {checked['images']} images: {checked['ours']} resist by our "
                f"loop, {checked['direct']} by the library itself, {checked['differ']} verdicts differ."
            )


def distortion_table(results: Results) -> list[str]:
    """Return the expected distortion rate of the loss and its two terms, and how wide the minimum is."""
    rows = []
    steps = results["steps"]
    near = [number for number, step in enumerate(steps) if abs(abs(step) - 0.5) < 1e-6]
    groups: dict[str, list[Row]] = {}
    for row in results["rows"]:
        groups.setdefault(row_name(row["label"], row["pruned"]), []).append(row)
    for name, group in groups.items():
        lines = [line for row in group for line in row["along"]]
        rise = mean(line[number] - line[len(steps) // 2] for line in lines for number in near)
        cells = [f"{mean(line[len(steps) // 2] for line in lines):.3f}", f"{rise:.2f}"]
        for rates in zip(*(row["distortion"] for row in group), strict=True):
            parts = [mean(rate[part] for rate in rates) for part in DISTORTION]
            cells.append(" / ".join(f"{part:.2f}" for part in parts))
        rows.append([name, *cells])
    eps = [rate["eps"] for rate in results["rows"][0]["distortion"]]
    head = (
        f"Loss in nats on {results['plan']['images']:,} training images; its rise at half a step along "
        f"{results['plan']['directions']} filter-normalized directions; and on "
        f"{results['rows'][0]['distortion_images']:,} test images the expected distortion rate under an L2 "
        "attack / in a random direction / the term of the gradient / the term of the curvature."
    )
    return [head, "", *table(["trained on", "loss", "rise", *(f"L2 {value:g}" for value in eps)], rows)]

"""Short reports on a linear network."""

from dataclasses import replace

import torch
from victims import linear_victim, own_images

from edgeprune_benchmarks.robustness.attacks.budgets import CURVE
from edgeprune_benchmarks.robustness.attacks.table import Effort
from edgeprune_benchmarks.robustness.evaluation import Evaluator
from edgeprune_benchmarks.robustness.protocol import Protocol
from edgeprune_benchmarks.robustness.report import make_report

BRIEF = Protocol(12, 6, (CURVE[4],), Effort(10, 20, 4), 12)
# All that controls ask for, where a report of the other norms would only say the same.
BRIEFEST = replace(BRIEF.in_linf(), effort=Effort(3, 5, 1))


def evaluate(victim, folder, natural=True, protocol=BRIEF):
    images, labels = own_images(linear_victim(), 12, spread=0.03)
    options = {"batch_size": protocol.batch_size, "effort": protocol.effort}
    run = Evaluator(victim, images, labels, folder, torch.device("cpu"), **options)
    return make_report(run, protocol, natural=natural, say=lambda line: None)


def failed(report):
    return {control["name"]: control["detail"] for control in report["controls"] if not control["passed"]}

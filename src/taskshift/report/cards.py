"""The five cards of a run, in the order in which one asks."""

from __future__ import annotations

from collections.abc import Mapping

from loss_landscape.page.content import Card
from taskshift.report.curvature import curvature_card, edge_card
from taskshift.report.features import features_card
from taskshift.report.plasticity import plasticity_card
from taskshift.report.trend import Tasks
from taskshift.report.trust import Place, PlaneFacts, trust_card


def cards_of(tasks: Tasks, planes: Mapping[Place, PlaneFacts]) -> tuple[Card, ...]:
    """Plasticity, curvature, edge of stability, features, trust; of the tasks that have ended."""
    return plasticity_card(tasks), curvature_card(tasks), edge_card(tasks), features_card(tasks), trust_card(tasks, planes)

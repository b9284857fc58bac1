"""The five cards of one landscape: three questions of its hints, the edge of stability, and whether to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loss_landscape.interpretation.edge import AT_THE_EDGE, FAR_FROM_IT, edge_answer
from loss_landscape.interpretation.evidence import Evidence
from loss_landscape.interpretation.hints import QUESTIONS, Answer, Hint
from loss_landscape.page.content import Card
from loss_landscape.page.trust import trust_card
from loss_landscape.page.words import told
from loss_landscape.storage.records import LandscapeRecord

EDGE_QUESTION = "Is it at the edge of stability?"
EDGE_LIMITS = (
    "2/η is the edge of plain gradient descent on all data; momentum moves it, the noise of batches keeps a net below it."
)
EDGE_SETTLED_BY = "compute_hessian_metrics at several epochs, and learning_rate= in record_checkpoint."


def landscape_cards(record: LandscapeRecord, evidence: Evidence, *, hints: Sequence[Hint]) -> tuple[Card, ...]:
    """What a landscape says in the first five seconds, by the `evidence` of its record and the `hints` of its landscapes.

    Of several landscapes of one mode the last counts, which is the one that is shown.
    """
    unseen = {name for name, grid in record.landscapes.items() if all(grid is not shown for shown in record.grids.values())}
    seen = [hint for hint in hints if hint.source not in unseen]
    hard, better, training = ([hint for hint in seen if hint.row.question == question] for question in QUESTIONS)
    missing = sum(metrics.converged.count(False) for metrics in record.hessians)
    return (
        _hint_card("Is it hard to train?", hard, yes=(0, 2), no=(1,)),
        _hint_card("Can it improve further?", better, yes=(1, 2), no=(0,), worrying=None),
        _hint_card("Was training smooth?", training, yes=(0, 3), no=(1, 2), worrying="no"),
        _edge_card(evidence),
        trust_card([(f"{mode} grid", grid) for mode, grid in record.grids.items()], num_unconverged=missing),
    )


def _hint_card(
    question: str,
    hints: Sequence[Hint],
    *,
    yes: Sequence[int],
    no: Sequence[int],
    worrying: Literal["yes", "no"] | None = "yes",
) -> Card:
    """A question answered by the first of its rows that is seen in any landscape; `yes` and `no` are rows that speak for either.

    What would worry comes first: what one landscape shows, another that does not show it can't refute.
    """
    rows = list(dict.fromkeys(hint.row for hint in hints))
    order = [rows[index] for index in ((*no, *yes) if worrying == "no" else (*yes, *no))]
    ranked = [hint for row in order for hint in hints if hint.row is row]
    shown = next((hint for hint in ranked if hint.answer == "yes"), None)
    if shown is None:
        unclear = next((hint for hint in ranked if hint.answer == "cannot tell"), ranked[0])
        return _told(question, "cannot tell", "nothing speaks clearly for yes or no", "", unclear, worrying)
    answer: Answer = "yes" if rows.index(shown.row) in yes else "no"
    return _told(question, answer, shown.row.sight, f"it may mean: {shown.row.meaning}", shown, worrying)


def _told(question: str, answer: Answer, headline: str, context: str, hint: Hint, worrying: Literal["yes", "no"] | None) -> Card:
    """A card with the evidence, the caveat and what would settle it of one hint."""
    found = _sentence(f"{hint.source}: {hint.evidence}" if hint.source else hint.evidence)
    evidence = f"Looked for: {hint.row.sight}. {found}"
    return Card(
        question, answer, headline, context, evidence, _sentence(hint.row.caveat), _sentence(hint.row.settled_by), worrying
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _edge_card(evidence: Evidence) -> Card:
    curvature, threshold = evidence.curvature, evidence.threshold
    if curvature is None or threshold is None:
        missing = "λ_max" if curvature is None else "the learning rate"
        said = (f"{missing} was not recorded", "", "It takes both λ_max and the learning rate η.")
        return Card(EDGE_QUESTION, "cannot tell", *said, EDGE_LIMITS, EDGE_SETTLED_BY, None)
    share = curvature.max_eigenvalue / threshold
    numbers = f"λ_max is {told(curvature.max_eigenvalue)} ± {curvature.errors[0]:.2g}, 2/η is {told(threshold)}"
    text = f"{numbers}. From {AT_THE_EDGE:g} of it on the answer is yes, below {FAR_FROM_IT:g} no."
    return Card(
        EDGE_QUESTION,
        edge_answer(share),
        f"λ_max is {share:.2g} of 2/η",
        f"2/η = {told(threshold)}",
        text,
        EDGE_LIMITS,
        EDGE_SETTLED_BY,
        None,
    )

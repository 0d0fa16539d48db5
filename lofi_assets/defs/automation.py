"""Named automation conditions, each with why."""

from typing import Any

import dagster as dg

_new_upstream: dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey] = dg.AutomationCondition.any_deps_match(
    (dg.AutomationCondition.data_version_changed() & ~dg.AutomationCondition.executed_with_root_target())
    | dg.AutomationCondition.will_be_requested()
)
"""Changed data, not a mere update: `eager()` also fires when an upstream wrote the same bytes again. A change made by a
run that was for this asset as well is that run's to bring here, also if it failed on the way. What is asked for in one
tick runs together, in lineage order, so that nothing is built from half of a change."""

_changed: dg.AutomationCondition[Any] = (
    _new_upstream | dg.AutomationCondition.code_version_changed() | dg.AutomationCondition.newly_missing()
)

_gates_hold: dg.AutomationCondition[dg.AssetKey | dg.AssetCheckKey] = dg.AutomationCondition.all_deps_match(
    dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed(), blocking_only=True)
    | dg.AutomationCondition.will_be_requested()
).with_label("every blocking gate upstream has passed, or is judged in the same run")
"""`all_deps_blocking_checks_passed()`, but for an upstream that is asked for too: its gates stop the run themselves."""

WHEN_INPUTS_CHANGE = (
    _changed.since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & _gates_hold
).with_label("an input's data changed and every blocking gate upstream has passed")
"""A failed blocking gate upstream holds the request until the gate passes: `eager()` looks at no check."""

WHEN_TRAINING_MOVES = WHEN_INPUTS_CHANGE.ignore(dg.AssetSelection.assets("dataset_manifest")).with_label(
    "checkpoints or what was made from them changed, and every blocking gate on the way has passed"
)
"""For what follows training. It also reads the dataset (prompts and references to compare with), which moves with every
track that lands; checkpoints of an older dataset are not judged again for that."""

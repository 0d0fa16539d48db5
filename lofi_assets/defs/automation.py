"""Named automation conditions, each with why."""

import dagster as dg

_changed: dg.AutomationCondition = (
    dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    | dg.AutomationCondition.code_version_changed()
    | dg.AutomationCondition.newly_missing()
)

WHEN_INPUTS_CHANGE = (
    _changed.since_last_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
).with_label("an input's data changed and every blocking gate upstream has passed")
"""Rebuild on changed data, not on a mere update: `eager()` also fires when an upstream wrote the same bytes again, and
it looks at no check. A failed blocking gate upstream holds the request until the gate passes."""

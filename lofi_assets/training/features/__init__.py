"""The feature cache: everything that stays frozen, computed once per track."""

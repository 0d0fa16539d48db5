"""Alerts: what people are told of gates, runs and deliveries, once each, whatever becomes of a receiver.

`messages.py` has the texts, `state.py` what was told and what waits, `gates.py`, `runs.py` and `arrivals.py` find what
is news, `outbox.py` keeps a queue per receiver, `services.py` knows the receivers. `defs/alerts.py` is the sensor, and
`defs/observations.py` what it reads of Dagster.
"""

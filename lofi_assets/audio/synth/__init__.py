"""Music made from numbers: grooves, instruments, songs. For the demo, the tests and the check of weights."""

"""Whether weights on a disk are those that a backbone was written for, and do what they are for."""

"""`make bench`: what the budgets (docs, design) cost on this machine, one module per budget.

What belongs here: measuring and printing. What does not: assertions, since times differ from machine to machine; rules
of the product are tests beside this folder. Nothing here needs a network, a GPU, or data that is there already.
"""

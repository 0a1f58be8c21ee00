"""The whole way: the order of the stages, the budget, the record of a run, and how it is resumed."""

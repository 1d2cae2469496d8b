"""A frontier's budgets: where they are placed, and the rows that planners make of them."""

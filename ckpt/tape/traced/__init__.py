"""A function on shapes alone: what it computes, and its backward as data."""

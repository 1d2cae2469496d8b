"""A schedule of a traced function, performed on arrays."""

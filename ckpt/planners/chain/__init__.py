"""A dynamic programme over uneven stages."""

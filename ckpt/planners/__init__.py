"""Planners: a Graph and a budget in, a Schedule out. One planner a file."""

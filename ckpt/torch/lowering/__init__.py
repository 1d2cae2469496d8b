"""The list as a Graph: values and calls, the backward as steps and rows, costs, workspace."""

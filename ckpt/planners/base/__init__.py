"""What all planners share."""

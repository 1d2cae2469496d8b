"""Reports: Timelines and plain rows in; tables, figures and files out."""

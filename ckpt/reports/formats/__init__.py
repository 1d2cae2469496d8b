"""What results are written as: one registry by the ending of a file's name, and each format."""

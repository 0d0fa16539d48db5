"""The training set: versions named by their content, their split, card and exports."""

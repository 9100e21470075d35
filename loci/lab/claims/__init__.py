"""One file for each claim; each module holds one `CLAIM`."""

"""The web viewer: a memory in the browser, for people. Needs the extra `web`; nothing imports it but `loci view`."""

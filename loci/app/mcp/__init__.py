"""`loci mcp`: the verbs as a server of the Model Context Protocol, over stdio or streamable HTTP."""

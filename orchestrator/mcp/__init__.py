"""The agent's loop as MCP tools: over stdio (`autoresearch mcp`) and at `/mcp` of the service.

Each tool is a call of the REST API and takes and gives its models, so nothing is decided, checked
or stored here. Every text in an answer passes rules/sanitize.py.
"""

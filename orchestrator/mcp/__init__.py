"""The agent's loop as MCP tools: over stdio (`autoresearch mcp`) and at `/mcp` of the service.

Each tool calls the REST API and uses its models, so nothing is decided, checked or stored here.
Every text in an answer passes rules/sanitize.py.
"""

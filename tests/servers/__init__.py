"""Real servers for the tests, had without being installed; CONTRIBUTING.md says where each comes from.

Never whatever listens on a default port: these tests flush, and that could be somebody's data.
"""

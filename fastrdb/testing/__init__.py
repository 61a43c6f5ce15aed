"""Contract suites, for the tests of fastrdb and of its users."""

"""Ends a run of the parity tests with the worst error of every quantity."""

from tests.parity import errors


def pytest_terminal_summary(terminalreporter):
    if lines := errors.table():
        terminalreporter.section("worst errors against the reference")
        for line in lines:
            terminalreporter.write_line(line)

"""What fails shows the logs of its kernels."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import fleet as fleets  # noqa: E402

fleets.alone = fleets.own_network()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for f in fleets.running:
            report.sections.append((f"kernels of {f.home}", f.logs()))


def fleet_fixture(scope="module", **kw):
    """A fixture that is a Fleet(**kw); at its end no sanitizer may have complained."""

    @pytest.fixture(scope=scope)
    def fixture():
        f = fleets.Fleet(**kw)
        try:
            yield f
            if f.rests:
                f.quiet()
            f.tos("down", timeout=120)
            said = f.sanitizer_reports()
            assert not said, said
        finally:
            f.close()

    return fixture

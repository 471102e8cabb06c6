import subprocess
import sys

from rig import QUICK, Rig

PROGRAM = """
import sys
from dramatiq.errors import ConnectionClosed
from worker.broker import KnockBroker
from worker.cli.main import main

def tidy(self):
    raise ConnectionClosed("the line went dead")

KnockBroker.tidy = tidy
sys.exit(main(["run"]))
"""


def test_a_redis_that_goes_away_during_the_start_is_told_like_any_other(rig: Rig) -> None:
    """Whichever connection notices it, the ledger's or the broker's: status 69 and a line, not a traceback."""
    env = {**rig.environment(QUICK), "REDIS_URL": rig.server.url, "ANTHROPIC_API_KEY": "sk-ant-nobody"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False,
        env=env,
        cwd=rig.directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 69
    assert "Traceback" not in ended.stderr
    assert "Redis cannot be reached" in ended.stderr

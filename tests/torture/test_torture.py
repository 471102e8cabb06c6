import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("needs_redis")
@pytest.mark.parametrize("seed", [1])
def test_a_little_torture_loses_doubles_and_pays_nothing(tmp_path: Path, seed: int) -> None:
    """Fifteen kills among 600 prompts; `make torture` does more of it."""
    words = ["--prompts", "600", "--kills", "15", "--minutes", "0.4", "--seed", str(seed)]
    ended = subprocess.run(
        [sys.executable, str(RUN), *words, "--directory", str(tmp_path / "run")],
        check=False,
        capture_output=True,
        text=True,
        timeout=380,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ALL ZERO" in ended.stdout
    assert not (tmp_path / "run").exists(), "what is kept only after a failure"

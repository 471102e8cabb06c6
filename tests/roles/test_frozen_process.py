from collections.abc import Callable
from typing import Any

from bench import Bench, turn

from worker.wiring import App


def freeze_behind_the_intent(app: App, seconds: float) -> None:
    """Let time pass for this process between its intent to post and the last byte, once."""
    durably, monotonic = type(app.barrier).durably, app.clock.monotonic
    slept = [0.0, seconds]

    def frozen(write: Callable[[Any], str]) -> str:
        answer = durably(app.barrier, write)
        slept[0] += slept.pop() if len(slept) > 1 else 0.0
        return answer

    app.barrier.durably = frozen  # type: ignore[method-assign]
    app.clock.monotonic = lambda: monotonic() + slept[0]  # type: ignore[method-assign]


def test_a_process_that_wakes_up_after_the_horizon_does_not_send_the_last_byte(bench: Bench) -> None:
    """By then another may have found the batch absent and sent it again: nothing is created, the body is cut."""
    bench.enqueue(*"abc")
    app = bench.start(submit__horizon="2s")
    freeze_behind_the_intent(app, 5.0)
    turn(app)
    assert bench.verdict()["batches"] == 0
    bench.drive(app)
    assert len(bench.rows()) == 3
    assert bench.verdict()["prompts_billed_twice"] == 0


def test_a_short_pause_costs_nothing(bench: Bench) -> None:
    """Within the horizon nobody else has concluded anything: the byte is sent."""
    bench.enqueue(*"abc")
    app = bench.start(submit__horizon="2s")
    freeze_behind_the_intent(app, 1.0)
    turn(app)
    assert bench.verdict()["batches"] == 1

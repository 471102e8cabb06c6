from bench import Bench
from endings import ends_right, enqueue, sizes


def test_a_stream_that_begins_with_anothers_lines_does_not_rule_our_batch_out(bench: Bench) -> None:
    """A first line that is not ours proves nothing: taken for proof, the batch was sent again and paid for twice."""
    bench.simulator.control.inject(
        [
            {"kind": "drop_reply", "on": "create", "times": 1},
            {"kind": "foreign_line", "on": "results", "lines": 3, "times": None},
        ]
    )
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_stream_that_ends_behind_anothers_line_does_not_either(bench: Bench) -> None:
    """Too few lines say nothing, however cleanly they end."""
    bench.simulator.control.inject(
        [
            {"kind": "drop_reply", "on": "create", "times": 1},
            {"kind": "cut_results", "on": "results", "fraction": 0.0, "mode": "clean", "times": 2},
            {"kind": "foreign_line", "on": "results", "lines": 1, "times": None},
        ]
    )
    names = enqueue(bench, 3)
    app = bench.start()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]

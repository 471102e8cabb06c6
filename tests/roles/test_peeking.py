from bench import Bench
from endings import batches, before_create, ends_right, enqueue, held, remote_ids, sizes, states, turns

from worker.core.model import State
from worker.reconciler import MOST_PEEKS

UNREAD = {"kind": "status", "on": "results", "status": 500, "error_type": "api_error", "times": None}


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


def test_what_was_ruled_out_is_known_before_all_candidates_have_been_looked_into(bench: Bench) -> None:
    """Among many strangers of our size a process that dies now and then would else begin anew for ever."""
    bench.simulator.control.inject(
        [{"kind": "drop_reply", "on": "create", "times": 1}, {"kind": "hide_from_list", "seconds": 1.0}]
    )
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="3s")
    made: list[object] = []
    before_create(app, lambda: made.extend(bench.simulator.control.foreign(3)["id"] for _ in range(2 * MOST_PEEKS)))
    bench.drive(app, lambda: any(batch.ruled_out for batch in batches(app)))
    assert batches(app)[0].ruled_out <= set(made[:MOST_PEEKS])
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_what_was_there_before_is_never_taken_for_ours(bench: Bench) -> None:
    """Once the head is deleted, a listing goes back ten minutes: a stranger's batch in there was held for ours."""
    control = bench.simulator.control
    older = control.foreign(3)["id"]
    head = control.foreign(1)["id"]
    control.inject([{"kind": "drop_reply", "on": "create", "times": 1}, {"kind": "hide_from_list", "seconds": 1.0}])
    control.inject({**UNREAD, "batch": older})
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="3s")
    bench.drive(app, lambda: State.SUBMITTING in states(app))
    control.delete(str(head))
    turns(app, 10)
    control.delete(str(older))
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_strangers_deletion_is_no_matter_once_ours_is_found(bench: Bench) -> None:
    """What was deleted before it could be read was not ours, if another proves to be: nobody has to decide."""
    control = bench.simulator.control
    control.inject([{"kind": "drop_reply", "on": "create", "times": 1}, {"kind": "hide_from_list", "seconds": 1.0}])
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="3s")
    bench.drive(app, lambda: State.SUBMITTING in states(app))
    stranger = control.foreign(3)["id"]
    control.inject({**UNREAD, "batch": stranger})
    bench.drive(app, lambda: any(stranger in batch.seen for batch in batches(app)))
    control.delete(str(stranger))
    ends_right(bench, app, names)
    assert sizes(bench) == [3]


def test_a_candidate_that_is_seen_while_another_is_read_is_missed_when_it_goes(bench: Bench) -> None:
    """Ours ran while a stranger's was looked into, and was deleted once it had ended: not sent again by itself."""
    control = bench.simulator.control
    control.inject([{"kind": "drop_reply", "on": "create", "times": 1}, {"kind": "stuck", "on": "create"}])
    enqueue(bench, 3)
    app = bench.start(submit__horizon="2s", submit__reconcile_interval="200ms")
    bench.drive(app, lambda: State.SUBMITTING in states(app))
    stranger = str(control.foreign(3)["id"])
    control.end(stranger)
    bench.drive(app, lambda: any(stranger in batch.ruled_out for batch in batches(app)))
    (ours,) = remote_ids(bench)
    control.end(ours)
    control.delete(ours)
    bench.drive(app, lambda: held(app))
    assert sizes(bench) == [3]


def test_strangers_who_never_stop_do_not_keep_a_batch_in_doubt(bench: Bench) -> None:
    """What the first listing behind the horizon does not show was never made, whatever appears after it."""
    control = bench.simulator.control
    control.inject([{"kind": "reset_before", "on": "create", "times": 1}, {"kind": "stuck", "on": "create"}])
    names = enqueue(bench, 3)
    app = bench.start(submit__horizon="500ms")
    bench.drive(app, lambda: State.SUBMITTING in states(app))
    running = [str(control.foreign(3)["id"])]

    def sent_again() -> bool:
        running.append(str(control.foreign(3)["id"]))
        control.end(running[-2])
        return State.IN_PROGRESS in states(app)

    bench.drive(app, sent_again)
    control.end()
    ends_right(bench, app, names)
    assert sizes(bench) == [3]

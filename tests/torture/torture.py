"""Torture: real processes, a real Redis, a misbehaving API, and a verdict from the API's own account.

    .venv/bin/python tests/torture/run.py --prompts 5000 --kills 100 --minutes 5 --seed 7

Exit status 0 only if nothing was lost, doubled, paid twice, stuck or left over.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chaos import Chaos
from evidence import read_logs
from finish import Finish
from producers import MOST_PROMPTS, Producers
from report import conclude, describe
from stage import Stage
from verdict import judge

WORKSPACES = ("exclusive", "shared", "both")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be."""

    prompts: int
    kills: int
    minutes: float
    seed: int
    workspace: str
    daemons: int
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    patience: float = 300.0


def parse(words: list[str] | None = None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=5_000, help="how many prompts go in, at least (default: 5000)")
    parser.add_argument("--kills", type=int, default=100, help="how many processes are killed (default: 100)")
    parser.add_argument("--minutes", type=float, default=5.0, help="over which the kills are spread (default: 5)")
    parser.add_argument("--seed", type=int, help="of all chances (default: from the clock)")
    parser.add_argument(
        "--workspace",
        choices=WORKSPACES,
        default="both",
        help="whether strangers share the account's workspace; both: first nobody, then strangers (default: both)",
    )
    parser.add_argument("--daemons", type=int, default=3, help="replicas at work (default: 3)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of the daemons: submit.horizon=0s shows what the verdict is there for",
    )
    parser.add_argument("--directory", type=Path, help="keep everything in here (default: a new one, kept on failure)")
    args = parser.parse_args(words)
    if not all("=" in pair for pair in args.set):
        parser.error("--set takes KEY=VALUE")
    if not 0 < args.prompts <= MOST_PROMPTS or args.kills < 0 or args.minutes <= 0 or args.daemons < 1:
        parser.error(f"1 to {MOST_PROMPTS} prompts, at least 0 kills, some minutes, at least one daemon")
    return Plan(
        prompts=args.prompts,
        kills=args.kills,
        minutes=args.minutes,
        seed=int(time.time()) if args.seed is None else args.seed,
        workspace=args.workspace,
        daemons=args.daemons,
        settings=dict(pair.split("=", 1) for pair in args.set),
        directory=args.directory or Path(tempfile.mkdtemp(prefix="batchmill-torture-")),
    )


class Torture:
    """One run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stage = Stage(
            plan.directory,
            daemons=plan.daemons,
            seed=plan.seed,
            exclusive=plan.workspace != "shared",
            settings=plan.settings,
            witness=self._witness,
        )
        self._producers = Producers(self._stage, total=plan.prompts, seed=plan.seed, wanted=self._wanted)
        self._chaos = Chaos(self._stage, plan.seed, self._producers.redis_died, interval=1.0)
        self._began = 0.0

    def run(self) -> bool:
        """Start, hurt, let finish, judge and print; returns whether all was well."""
        stage, chaos, plan = self._stage, self._chaos, self._plan
        try:
            stage.start_redis()
            stage.start_api()
            for name in stage.names:
                stage.start_daemon(name)
            self._producers.start()
            self._began = time.monotonic()
            self._hurt()
            spent = time.monotonic() - self._began
            finish = Finish(stage, chaos, self._producers, patience=plan.patience)
            evidence = finish.run(self._producers.allow_more)
        except BaseException:
            stage.close()
            raise
        verdict = judge(evidence)
        unmet = [f"{chaos.total} of {plan.kills} kills"] if chaos.total < plan.kills else []
        _print(
            describe(
                chaos=chaos,
                proxy=stage.proxy,
                ended=stage.ended,
                counts=self._producers.counts,
                told=read_logs(stage.directory)[0],
                billing=evidence.billing,
                prompts=len(evidence.asked),
                rows=Counter(row.result for row in evidence.rows),
            )
        )
        _print([f"Chaos lasted {spent:.0f} s, the rest was done {finish.seconds:.0f} s later."])
        _print(conclude(verdict, unmet=unmet))
        return verdict.good and not unmet

    def _witness(self, owner: str, moment: str, side: str) -> bool:
        return self._chaos.witness(owner, moment, side)

    def _wanted(self) -> int:
        """Prompts go in as fast as kills happen, so that every kill meets work."""
        share = (self._chaos.total + 1) / max(1, self._plan.kills * 0.98)
        return int(self._plan.prompts * min(1.0, share))

    def _hurt(self) -> None:
        plan, chaos, seconds = self._plan, self._chaos, self._plan.minutes * 60
        told_at = time.monotonic()
        while chaos.total < plan.kills or not self._producers.done:
            now = time.monotonic()
            if self._producers.failure is not None:
                raise self._producers.failure
            if now - self._began > 2 * seconds + 60:
                return
            left = max(1, plan.kills - chaos.total)
            chaos.interval = max(0.1, 0.8 * (seconds - (now - self._began)) / left)
            if chaos.total >= plan.kills:
                chaos.interval = 3600.0
            if plan.workspace == "both" and self._stage.exclusive and chaos.total >= plan.kills / 2:
                self._share()
            chaos.step()
            if now - told_at > 60:
                told_at = now
                _print(
                    [f"{now - self._began:6.0f} s: {chaos.total} kills, {len(self._producers.asked)} prompts"],
                )
            time.sleep(0.02)

    def _share(self) -> None:
        """Strangers come into the workspace: every daemon is told so by a rolling restart, before the first does."""
        self._stage.exclusive = False
        for process in self._stage.daemons.values():
            if process is not None:
                process.signal(signal.SIGTERM)


def _print(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)  # a command prints


def main() -> int:
    """Run the plan of the command line; returns the exit status."""
    plan = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # so that nothing it started is left behind
    again = (
        f"python tests/torture/run.py --prompts {plan.prompts} --kills {plan.kills} --minutes {plan.minutes:g} "
        f"--seed {plan.seed} --workspace {plan.workspace} --daemons {plan.daemons}"
        + "".join(f" --set {key}={value}" for key, value in plan.settings.items())
    )
    _print([f"Torture: {again}", f"In {plan.directory}"])
    good = Torture(plan).run()
    if good:
        shutil.rmtree(plan.directory)
    _print([f"{'Good' if good else f'Everything is kept in {plan.directory}'}; to repeat: {again}"])
    return 0 if good else 1

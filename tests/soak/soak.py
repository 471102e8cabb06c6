"""One soak: a day of traffic, deploys and crashes on a fleet, sampled each hour, then everything comes to its end."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from census import Census, take
from compressed_day import CONFIGURED, DEAD_RETENTION, HOUR, CompressedDay
from fleet import Checkout, Fleet, Server, SoakError, wait_until
from judgement import HURRIED, MB, End, Limits, Sample, judge_day, judge_end
from traffic import Traffic
from vitals import count_series, read_vitals

from worker.ledger.keys import Keys
from worker.simulator import Simulator
from worker.simulator.audit import paid
from worker.simulator.batch import NEVER

TEMPORARY = re.compile(r"\..+\.tmp")
OLD_BATCHES = 1_000
"""Batches of others that the workspace shows already: a look at the newest page is long from the start."""

CALM_MINUTES = 10.0
"""In less a few slow seconds of the machine are a large part of an hour, and what waits swings by as much."""

SETTLING_SECONDS = 120.0
STUCK_FOR = 2 * HOUR
KEYS = Keys("batchmill:")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run. `rate` is prompts a second at medium load; `other` is a checkout or a revision."""

    day: CompressedDay
    directory: Path
    rate: float = 25.0
    seed: int = 1
    other: str | None = None
    plants: str = ""

    @property
    def limits(self) -> Limits:
        """The limits of the judgement: the first wave does not count, and a hurried day is judged less closely."""
        wave = self.day.wave
        if self.day.minutes >= CALM_MINUTES:
            return Limits(wave=wave, warm_up=wave)
        return HURRIED(wave=wave, warm_up=wave)

    @property
    def deploys(self) -> list[int]:
        """The hours in which the two replicas are replaced."""
        return list(range(2, self.day.hours - 1, 5))

    @property
    def crashes(self) -> list[int]:
        """The hours in which one of them dies without a word."""
        return list(range(4, self.day.hours - 1, 10))


@dataclass(slots=True)
class Outcome:
    """Everything that was seen, and what is wrong with it."""

    samples: list[Sample] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    told: dict[str, object] = field(default_factory=dict)


class Soak:
    """Runs a plan; `tell` hears of each hour and each event."""

    def __init__(self, plan: Plan, tell: Callable[[str], object]) -> None:
        self._plan = plan
        self._tell = tell
        self._outcome = Outcome()
        self._settled: set[tuple[str, str]] = set()
        self._hands: list[threading.Thread] = []
        self._broken: list[str] = []

    def run(self) -> Outcome:
        """Live the day and judge it. Raises SoakError if it cannot be lived."""
        plan = self._plan
        plan.directory.mkdir(parents=True, exist_ok=True)
        server = Server(plan.directory / "redis")
        other = Checkout.of(plan.other, plan.directory) if plan.other else None
        try:
            with Simulator(seed=plan.seed, poll_hint=0, **plan.day.api()) as api:
                for _ in range(OLD_BATCHES):
                    api.control.foreign(1)
                api.control.end()
                fleet = Fleet(
                    day=plan.day,
                    directory=plan.directory,
                    redis_url=server.url,
                    api_url=api.url,
                    other=other,
                    plants=plan.plants,
                    tell=self._tell,
                )
                try:
                    self._live(server, api, fleet)
                finally:
                    for hand in self._hands:
                        hand.join()
                    fleet.close()
        finally:
            server.close()
        return self._outcome

    def _live(self, server: Server, api: Simulator, fleet: Fleet) -> None:
        plan, outcome = self._plan, self._outcome
        before, empty = server.data_bytes(), server.used_memory()
        api.control.inject(plan.day.faults())
        traffic = Traffic(day=plan.day, redis_url=server.url, rate=plan.rate, seed=plan.seed)
        try:
            traffic.start()
            began = time.monotonic()
            for hour in range(1, plan.day.hours + 1):
                self._at(server, began, hour - 0.9)
                if hour in plan.deploys:
                    self._hand(fleet.deploy)
                if hour in plan.crashes:
                    self._hand(fleet.crash)
                self._at(server, began, hour - 0.01)
                self._mend(api, self._plan.day.real(STUCK_FOR))
                outcome.samples.append(self._sample(hour, server, fleet))
                self._tell(spell(outcome.samples[-1]))
            traffic.stop()
            end = self._end(server, api, fleet, before, traffic)
        finally:
            traffic.close()
        outcome.complaints = [
            *self._broken,
            *judge_day(outcome.samples, plan.limits),
            *judge_end(end, plan.limits),
            *self._exits(fleet),
        ]
        outcome.told |= {"prompts": traffic.wanted.total(), **traffic.told, "batches": len(self._settled)}
        outcome.told |= {"bytes of all keys": f"{before} empty, {end.data_bytes_after} at the end"}
        outcome.told |= {"used_memory": f"{empty / MB:.2f} MB empty, {server.used_memory() / MB:.2f} MB at the end"}
        outcome.told |= {"posts": api.control.audit.describe()["posts"]}
        outcome.told |= {f"events of {name}": shown(counted) for name, counted in fleet.events().items()}

    def _at(self, server: Server, began: float, hour: float) -> None:
        """Wait for an hour of the day, and note meanwhile what is settled, before it is forgotten."""
        until = began + hour * self._plan.day.real(HOUR)
        while (left := until - time.monotonic()) > 0:
            self._note_settled(server)
            time.sleep(min(left, 1.0))

    def _note_settled(self, server: Server) -> list[str]:
        client: Any = server.client
        lanes = [lane.decode() for lane in client.smembers(KEYS.lanes)]
        for lane in lanes:
            self._settled |= {(lane, uid.decode()) for uid in client.zrange(KEYS.settled(lane), 0, -1)}
        return lanes

    def _mend(self, api: Simulator, age: float) -> None:
        """End what is stuck at the API for so long, as its own people would."""
        now = api.control.timeline.now()
        for batch in api.control.remote.batches():
            if batch.takes == NEVER and batch.ended_at(now) is None and now - batch.born_at > age:
                api.control.end(batch.id)

    def _hand(self, act: Callable[[], None]) -> None:
        """Do something beside the day, after whatever is being done there already."""
        before = self._hands[-1] if self._hands else None

        def work() -> None:
            if before is not None:
                before.join()
            try:
                act()
            except SoakError as error:
                self._broken.append(str(error))

        self._hands.append(threading.Thread(target=work))
        self._hands[-1].start()

    def _sample(self, hour: int, server: Server, fleet: Fleet) -> Sample:
        vitals = read_vitals(fleet.elder.process.pid)
        series = count_series(fleet.elder.get("/metrics"))
        census = self._census(server)
        files = list(self._files())
        return Sample(
            hour=hour,
            keys=census.keys,
            members=census.members,
            used_memory=server.used_memory(),
            rss=vitals.rss,
            threads=vitals.threads,
            fds=vitals.fds,
            series=series,
            temporary_files=sum(bool(TEMPORARY.fullmatch(file.name)) for file in files),
            files=sum(file.suffix == ".jsonl" for file in files),
            strays=frozenset(census.strays),
        )

    def _census(self, server: Server) -> Census:
        census = take(server.client)
        self._settled |= census.settled
        return census

    def _files(self) -> Iterable[Path]:
        return (path for path in (self._plan.directory / "results").rglob("*") if path.is_file())

    def _end(self, server: Server, api: Simulator, fleet: Fleet, before: int, traffic: Traffic) -> End:
        """Let everything settle, then let everything that was kept for a while come to its end."""
        api.control.clear_faults()
        for hand in self._hands:
            while hand.is_alive():
                self._note_settled(server)
                hand.join(1.0)
        stuck: list[str] = []
        patience = SETTLING_SECONDS + self._plan.day.real(3 * HOUR)

        def all_settled() -> bool:
            self._mend(api, 0.0)
            return self._all_settled(server)

        self._patiently(all_settled, "every prompt is settled", patience, stuck)
        patience = SETTLING_SECONDS + self._plan.day.real(2 * DEAD_RETENTION)
        permanent = permanent_keys()

        def all_ended() -> bool:
            letters = [server.client.xlen(KEYS.dead(lane)) for lane in CONFIGURED]
            return self._keys(server) <= permanent and not any(letters)

        self._patiently(all_ended, "everything that was kept for a while has come to its end", patience, stuck)
        census = self._census(server)
        rows, succeeded, uids = self._rows()
        end = End(
            keys=self._keys(server),
            permanent=permanent,
            strays=census.strays,
            members=census.members,
            data_bytes_before=before,
            data_bytes_after=server.data_bytes(),
            temporary_files=[file.name for file in self._files() if TEMPORARY.fullmatch(file.name)],
            wanted=traffic.wanted,
            rows=rows,
            billed=billed(api),
            succeeded=succeeded,
            file_batches=uids,
            settled_batches={uid for _, uid in self._settled},
            stuck=stuck,
        )
        fleet.stop()
        return end

    def _patiently(self, condition: Callable[[], bool], what: str, patience: float, stuck: list[str]) -> None:
        try:
            wait_until(condition, description=what, timeout=patience)
        except SoakError as error:
            stuck.append(str(error))

    def _all_settled(self, server: Server) -> bool:
        client: Any = server.client
        lanes = self._note_settled(server)
        streams = list(client.scan_iter(match="batchmill:{*}:prompts", _type="STREAM"))
        return not any(client.zcard(KEYS.due(lane)) for lane in lanes) and not any(map(client.xlen, streams))

    def _keys(self, server: Server) -> set[str]:
        return {key.decode() for key in server.client.scan_iter(count=1000)}

    def _rows(self) -> tuple[Counter[str], Counter[str], list[str]]:
        """Read all result files: rows by prompt, answers that succeeded by custom_id, and the batches of the files."""
        rows: Counter[str] = Counter()
        succeeded: Counter[str] = Counter()
        uids: list[str] = []
        for file in self._files():
            if file.suffix != ".jsonl":
                continue
            uids.append(file.stem)
            for line in file.read_text("utf-8").splitlines():
                row = json.loads(line)
                rows[row["id"]] += 1
                if row["result"]["type"] == "succeeded":
                    succeeded[row["custom_id"]] += 1
        return rows, succeeded, uids

    def _exits(self, fleet: Fleet) -> list[str]:
        complaints = [f"{count} replicas ended with {status}" for status, count in fleet.statuses.items() if status]
        for name, counted in fleet.events().items():
            if counted["role.failed"]:
                complaints.append(f"{counted['role.failed']} unforeseen errors in replicas of {name}")
            if counted["soak.constant_missing"]:
                self._tell(f"replicas of {name} do not have all constants that are scaled")
        return complaints


def permanent_keys() -> set[str]:
    """Return the keys of a deployment that has nothing to do."""
    kept = {KEYS.deployment, KEYS.lanes, KEYS.waiting, "batchmill:{knocks}:__heartbeats__"}
    for lane in CONFIGURED:
        kept |= {KEYS.prompts(lane), KEYS.lane(lane), KEYS.dead(lane)}
    return kept


def billed(api: Simulator) -> Counter[str]:
    """Return what the API has been paid for, by custom_id."""
    remote, now = api.control.remote, api.control.timeline.now()
    counted: Counter[str] = Counter()
    for batch in remote.batches():
        if not batch.foreign:
            rows = remote.rows(batch)
            counted.update(rows.ids[index] for index in paid(batch, rows, now))
    return counted


def shown(counted: Counter[str]) -> str:
    """Spell the events that matter."""
    words = ("batch.sealed", "batch.submitted", "batch.delivered", "batch.settled", "doubt.resolved", "role.failed")
    return ", ".join(f"{word} {counted[word]}" for word in words)


HEAD = "hour  keys  wait batch settl dedup remot  dead lanes knock strays  redis MB  rss MB thr  fd series files tmp"


def spell(sample: Sample) -> str:
    """Spell an hour as a row of the table."""
    keys, members = Counter(sample.keys), Counter(sample.members)
    return (
        f"{sample.hour:4d} {keys.total():5d} {members['prompts']:5d} {keys['batch']:5d} {members['settled']:5d}"
        f" {keys['dedupe']:5d} {keys['remote']:5d} {members['dead']:5d} {members['lanes']:5d} {members['knocks']:5d}"
        f" {len(sample.strays):6d}  {sample.used_memory / MB:8.2f} {sample.rss / MB:7.1f} {sample.threads:3d}"
        f" {sample.fds:3d} {sample.series:6d} {sample.files:5d} {sample.temporary_files:3d}"
    )

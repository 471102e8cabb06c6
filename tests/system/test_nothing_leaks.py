import signal

from rig import Rig, params, wait_until

KEY = "sk-ant-canary-0123456789abcdef"
PROMPT = "canaryprompt"
METADATA = "canarymetadata"
PASSWORD = "canarypassword"


def shown(rig: Rig) -> str:
    """Return everything that workers of this deployment have shown to anybody but their sinks."""
    said = [text for worker in rig.workers for text in (worker.out, worker.err)]
    asked = [
        worker.get(path)[1]
        for worker in rig.workers
        if worker.alive
        for path in ("/metrics", "/statusz", "/livez", "/readyz", "/nonsense")
    ]
    return "\n".join([*said, *asked])


def test_no_secret_and_no_prompt_is_ever_shown(rig: Rig) -> None:
    """Neither log, standard output nor ops endpoints name a key, a password or what a prompt says, in any trouble."""
    rig.server.client.config_set("requirepass", PASSWORD)
    rig.server.client.auth(PASSWORD)
    secret_url = rig.server.url.replace("//", f"//:{PASSWORD}@")
    env = {"ANTHROPIC_API_KEY": KEY, "REDIS_URL": secret_url, "ANTHROPIC_LOG": "debug"}
    rig.inject("status", on="create", status=401, message=f"invalid x-api-key {KEY}", times=2)
    rig.inject("status", on="create", status=400, message=f"{PROMPT} is not allowed", times=2)
    rig.inject("status", on="create", status=500, message=PROMPT, times=1)
    rig.inject("garbage", on="create", body=f'{{"id": "{PROMPT}', times=1)
    rig.inject("rows", result="errored", error_type="api_error", message=f"{PROMPT} failed", fraction=0.3, times=3)
    rig.inject("rows", result="errored", error_type="invalid_request_error", message=PROMPT, fraction=0.3, times=2)
    rig.inject("garbage", on="results", body=f'{{"custom_id": "{PROMPT}"\n', times=2)
    rig.inject("cut_results", times=2, mid_line=True)
    rig.inject("garbage", on="retrieve", body=PROMPT, times=2)
    entries = [
        {"params": params(f"{PROMPT} {number}"), "id": f"n{number}", "metadata": f'"{METADATA}"'}
        for number in range(60)
    ]
    entries += [
        {"params": f'{{"model": "{PROMPT}"', "id": "cut"},
        {"params": f'"{PROMPT}"', "id": "text"},
        {"params": params(PROMPT), "metadata": METADATA, "id": "bad-metadata"},
    ]
    rig.add(entries)
    first = rig.start(env=env, log__level="debug", lanes__default__max_count="20", submit__horizon="1s")
    wait_until(rig.created, description="the first batch gets through")
    first.signal(signal.SIGUSR2)
    first.signal(signal.SIGHUP)
    wait_until(lambda: "config.reloaded" in first.err, description="the settings are read again")
    first.kill()
    second = rig.start(env=env, log__level="debug", lanes__default__max_count="20", submit__horizon="1s")
    rig.await_rows(len(entries))
    assert {row["id"] for row in rig.rows()} == {entry["id"] for entry in entries}
    text = shown(rig)
    assert second.stop() == 0
    text += second.err
    for canary in (KEY, KEY.removeprefix("sk-ant-"), PROMPT, METADATA, PASSWORD):
        at = text.find(canary)
        assert at < 0, text[max(0, at - 300) : at + 100]
    assert "batch.sealed" in text, "there was nothing to leak into"
    assert any(METADATA in line for line in rig.row_lines()), "the canary was never in"


def test_a_start_that_fails_names_no_secret(rig: Rig) -> None:
    """What is wrong with a setting is said without the setting's value where that may be secret."""
    rig.server.stop()
    url = rig.server.url.replace("//", f"//user:{PASSWORD}@")
    workers = [
        rig.spawn(env={"REDIS_URL": url, "ANTHROPIC_API_KEY": KEY}),
        rig.spawn(env={"REDIS_URL": f"http://:{PASSWORD}@nowhere", "ANTHROPIC_API_KEY": KEY}),
        rig.spawn(env={"ANTHROPIC_API_KEY": f"{KEY}\nsecond line"}),
        rig.spawn(env={"ANTHROPIC_API_KEY": f"{KEY}\u2603"}),
    ]
    assert [worker.wait() for worker in workers] == [69, 78, 78, 78]
    for worker in workers:
        assert worker.err
        assert PASSWORD not in worker.err + worker.out
        assert "canary" not in worker.err + worker.out
        assert "Traceback" not in worker.err

"""Every event kickwatch logs: name, MESSAGE_ID, and how often it may be logged. docs/events.md explains each."""

from enum import StrEnum

from kickwatch.journal.limits import Rate


class Event(StrEnum):
    """An event name with its MESSAGE_ID. Neither ever changes; only keys may be added."""

    message_id: str  # 128 bits in hexadecimal, from `journalctl --new-id128`

    def __new__(cls, name: str, message_id: str) -> "Event":
        """A string with a MESSAGE_ID."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.message_id = message_id
        return event

    STARTED = "kickwatch.started", "26f2d6318c324c0a80c0cb336c95af5b"
    STOPPED = "kickwatch.stopped", "104685df77a44e1eb1fde3bfae2811e0"
    TRIAL_FINISHED = "kickwatch.trial_finished", "ffba13367fc046489e42a604a38da26b"
    TRIAL_VOID = "kickwatch.trial_void", "f2c12b42e4c94ff6b37f5823edee1d83"
    CONTAINERS_FAILED = "kickwatch.containers_failed", "777fd90efa7e414083284fb74bbcebc1"
    CONTAINERS_RUN = "kickwatch.containers_run", "b8ec46039c1141bda9340de85fdc8128"
    VERDICT_STALE = "kickwatch.verdict_stale", "7d85d644ad1b43319eed2de6305f322c"
    VERDICT_FRESH = "kickwatch.verdict_fresh", "cf05f32de8e44e828190099f721da192"
    TRIAL_FAILED = "kickwatch.trial_failed", "aa4cf34528ee4208b1a3ba4b81eaa4e1"
    BROADCAST_DETECTED = "kickwatch.broadcast_detected", "10792d80760541a0abc7713fc57d1d66"
    BROADCAST_ENDED = "kickwatch.broadcast_ended", "5fa7abfe087b4ed5b447a43cc05412ec"
    CONTENTION_DETECTED = "kickwatch.contention_detected", "3a99717c534940a08bf73c665910af20"
    CONTENTION_ENDED = "kickwatch.contention_ended", "c16d2e714d014764825aacc3f853f5de"
    DESTROY_DETECTED = "kickwatch.destroy_detected", "4d01ab3b330f45cc953e8d2cc1979958"
    DESTROY_ENDED = "kickwatch.destroy_ended", "4557e706b48b46c28f7015c5a3c99a0c"
    EXCESS_DETECTED = "kickwatch.excess_detected", "d7e5cbcd99b446dca1340e910834dd84"
    EXCESS_ENDED = "kickwatch.excess_ended", "0dbb28658b6548539ae3b9c7fcee2819"
    ELSEWHERE_DETECTED = "kickwatch.elsewhere_detected", "89616bfc64d24639a0d6182beab0fa75"
    ELSEWHERE_ENDED = "kickwatch.elsewhere_ended", "a3346609673041bab6d72baa52105336"
    ISOLATION_BROKEN = "kickwatch.isolation_broken", "719482cc04ff4cd79605b1c0033ec5c1"
    ISOLATION_RESTORED = "kickwatch.isolation_restored", "cffc31738a1042e782a28a6c8d24f165"
    REGRESSION_DETECTED = "kickwatch.regression_detected", "1100301c951e47ecb175599af530d51e"
    REGRESSION_ENDED = "kickwatch.regression_ended", "f952b4df027443088e3282ca64c02c2d"
    EVIDENCE_CHANGED = "kickwatch.evidence_changed", "1924ff012d904806913888dfde15a5c0"
    EVIDENCE_DROPPED = "kickwatch.evidence_dropped", "d4938a5583224b5d920d7d1d9c6dd6d8"
    HISTORY_TROUBLE = "kickwatch.history_trouble", "d1e10947f4bd42ed96547f29c44c9db8"
    HISTORY_RESUMED = "kickwatch.history_resumed", "5645f021ca7fecb56f2dd4727841ecb3"
    OBSERVER_BLIND = "kickwatch.observer_blind", "49f7f65342664a019556f559f7fcedd1"
    OBSERVER_SEES = "kickwatch.observer_sees", "58aa29712a2b424fb7312ea309a2417c"
    CLEAN_UP_FAILED = "kickwatch.clean_up_failed", "76bfcd502e2f4af083f9cb5ae4917024"
    METRICS_UNSERVED = "kickwatch.metrics_unserved", "8352a2bf022f429ebbb4d33186784e34"
    METRICS_SERVED = "kickwatch.metrics_served", "55b149a119564201b05ab5074866f122"
    TEXTFILE_UNWRITTEN = "kickwatch.textfile_unwritten", "29ee3f6db1e04d1085727df6cf395321"
    TEXTFILE_WRITTEN = "kickwatch.textfile_written", "779ca6284f4346f1a47313553e5e2345"
    BUDGET_UNWRITTEN = "kickwatch.budget_unwritten", "abaeb772bc314174b7fd68c2a2c88f02"
    BUDGET_WRITTEN = "kickwatch.budget_written", "81b36045257a486e8626941cd41aca96"
    BUDGET_UNREAD = "kickwatch.budget_unread", "3b5f39162ede4680bc34fb0d03810797"
    CAPABILITIES_KEPT = "kickwatch.capabilities_kept", "d5e0cc3cdcd3469e81832db81e1554fd"
    RUNTIME_DRIVEN = "kickwatch.runtime_driven", "3feef5dfabba4893ab972cfa5d2d9cbd"
    SECCOMP_MISSING = "kickwatch.seccomp_missing", "833b8107ab864df9907c3bea172f11a6"
    KUBELET_BESIDE = "kickwatch.kubelet_beside", "3a8ca7b2fc994fad8e9f06f55b92f6b1"
    WARM_UP_FAILED = "kickwatch.warm_up_failed", "7136969bd2ae4f57a1993ecf7cad2ed2"
    KNOB_IGNORED = "kickwatch.knob_ignored", "99b4399b1e434ce89c0f1bd0654f3e88"
    MEMCG_LINGERS = "kickwatch.memcg_lingers", "8c64d0d00bbc446fbc56bbd4fa2b649c"
    CAPABILITY_LOST = "kickwatch.capability_lost", "051a101d6cab45cd83ae1befacc08737"
    CONFIG_WARNING = "kickwatch.config_warning", "132596b90cac459b9503b08adb0f4e94"
    PAUSED = "kickwatch.paused", "8895976c5a9c4646a2d18c771a1832ca"
    RESUMED = "kickwatch.resumed", "a9c95db4a966402c9ba6cbc48929ba5c"
    DRAINED = "kickwatch.drained", "9adb6d38a2a74298adf6f4061362ce85"
    UNDRAINED = "kickwatch.undrained", "a02d20c4b4e64af1a6aaafc47054e294"
    RELOADED = "kickwatch.reloaded", "135b7b53c3b54822adb7bac1b917dae8"
    FAILED = "kickwatch.failed", "a0ca680212d946bb93c0ee68ee028d77"
    RELOAD_REFUSED = "kickwatch.reload_refused", "9d6e62997d574a149b78d3389ffdfdf1"
    ENGINE_LOST = "kickwatch.engine_lost", "87a825914dbe4529bf2811613e11d8cc"
    ENGINE_FOUND = "kickwatch.engine_found", "90e87d98ed4e45509a9aaa7b79bcf70a"
    ENGINE_UNNAMED = "kickwatch.engine_unnamed", "13b95c8cdcb8cad89707daff832e861c"
    RESTORED = "kickwatch.restored", "b610ec81697f38af3d88d38b8cb5d5da"
    SUMMARY = "kickwatch.summary", "ac88345b97774b54a706436de89c878d"


# Names and MESSAGE_IDs of removed events. They are never used again, since alerts may still refer to them.
RETIRED = {"kickwatch.note": "608c76859bbf48ae9ff1a25f5b3ce9ed"}

# How often each may be logged. Trials come at the pace of budget and windows, other events when something changes.
RATES: dict[str, Rate] = {Event.TRIAL_FINISHED: Rate(burst=120, period_s=5.0)}
RATE = Rate(burst=20, period_s=30.0)
# Conditions are always logged: nobody would ever see a dropped alert.
NEVER_DROPPED = frozenset(
    {event for event in Event if event.endswith(("_detected", "_ended"))}
    | {Event.ISOLATION_BROKEN, Event.ISOLATION_RESTORED, Event.OBSERVER_BLIND, Event.OBSERVER_SEES}
)

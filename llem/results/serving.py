"""What a served run says beside its tokens and joules: how idle its server was, whether its load was the planned one, who counted what."""

import msgspec


class ServingMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One server under load; None where it does not say, or nobody asked."""

    server_idle_power_w: float | None = None  # weights loaded, nothing to do; sum over devices
    idle_energy_j: float | None = None  # of the measurement, while no request was in flight
    drain_sec: float | None = None  # after the measurement, until the last of its requests was answered
    drain_energy_j: float | None = None
    drain_requests: int | None = None  # that ended then
    drain_output_tokens: int | None = None  # with those of the measurement, all that came
    server_start_sec: float | None = None  # from its start to its first answer
    offered_rate_per_s: float | None = None  # requests due over the time in which they were
    sent_rate_per_s: float | None = None  # the same requests over the time in which they were sent
    # from when a request was due, and held back by no cap, to its first byte sent
    send_lag_p99_ms: float | None = None
    client_cpu: float | None = None  # cores that the load process used
    client_lag_p99_ms: float | None = None  # how late its event loop came to a regular call
    max_in_flight: int | None = None
    cached_input_tokens: int | None = None
    usage_input_tokens: int | None = None
    usage_output_tokens: int | None = None
    counted_output_tokens: int | None = None  # by us, of the requests whose usage is known
    # by the server's counters, from just before to just after the measurement
    server_input_tokens: int | None = None
    server_output_tokens: int | None = None
    streamed_output_tokens: int | None = None  # by us, of all requests
    restarts: int | None = None  # of the server, by its counters
    other_processes_on_gpus: int | None = None

    @property
    def rate_held(self) -> float | None:
        """The rate at which requests were sent as a fraction of that at which they were due."""
        if self.offered_rate_per_s is None or self.sent_rate_per_s is None or not self.offered_rate_per_s:
            return None
        return self.sent_rate_per_s / self.offered_rate_per_s

    @property
    def usage_disagreement(self) -> float | None:
        """Distance of the output tokens by the server's usage from ours of the same requests, as a fraction of ours."""
        return _distance(self.counted_output_tokens, self.usage_output_tokens)

    @property
    def counter_disagreement(self) -> float | None:
        """The same of its counters, which have tokens of every request that it was asked."""
        return _distance(self.streamed_output_tokens, self.server_output_tokens)


def _distance(ours: int | None, theirs: int | None) -> float | None:
    return None if theirs is None or not ours else abs(theirs - ours) / ours

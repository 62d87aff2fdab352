"""The numbers of a server in the form that Prometheus reads."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt.serve.served import Served

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)  # seconds
NEXT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)  # seconds


class SchedulerCollector(Collector):
    """The numbers of the schedulers, which are read when somebody asks for them."""

    rows = (
        (GaugeMetricFamily, "tensorlite_texts_running", "Texts that are written now.", "running"),
        (GaugeMetricFamily, "tensorlite_texts_waiting", "Texts that wait for their turn.", "waiting"),
        (CounterMetricFamily, "tensorlite_tokens_written", "Tokens of texts.", "tokens_written"),
        (CounterMetricFamily, "tensorlite_tokens_read", "Tokens that the models read.", "tokens_read"),
        (CounterMetricFamily, "tensorlite_tokens_cached", "Tokens of prompts that a cache held.", "tokens_cached"),
        (CounterMetricFamily, "tensorlite_steps", "Steps of the batches.", "steps"),
    )

    def __init__(self, served: Served) -> None:
        self.served = served

    def collect(self) -> Iterator[Metric]:
        """Yield each number with its name, for each model."""
        stats = {name: one.scheduler.stats for name, one in self.served.models.items()}
        for family, name, help, field in self.rows:
            metric = family(name, help, labels=["model"])
            for model, values in stats.items():
                metric.add_metric([model], getattr(values, field))
            yield metric


class Metrics:
    """The numbers of one server: requests by route and status, tokens, the queue, and times of tokens."""

    def __init__(self, served: Served) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(SchedulerCollector(served))
        self.requests = Counter(
            "tensorlite_requests", "Requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "tensorlite_request_seconds", "Time of a request.", ["route"], buckets=FIRST, registry=self.registry
        )
        self.first = Histogram(
            "tensorlite_time_to_first_token_seconds", "Time from a request to its first token.", ["model"],
            buckets=FIRST, registry=self.registry,
        )  # fmt: skip
        self.next = Histogram(
            "tensorlite_time_per_token_seconds", "Time from a token to the next one.", ["model"], buckets=NEXT,
            registry=self.registry,
        )  # fmt: skip

    def token(self, model: str, first: bool, seconds: float) -> None:
        """Count a token that took some time after the request, or after the token before it."""
        (self.first if first else self.next).labels(model).observe(seconds)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(method if method in METHODS else "other", route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all numbers in Prometheus's text format."""
        return generate_latest(self.registry)


class CountRequests:
    """A layer around an application that counts requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, begin = 500, time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            # A path is not a route, because there can be any number of them.
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.request(scope["method"], route, status, time.perf_counter() - begin)

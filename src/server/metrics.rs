//! What `/metrics` tells, in Prometheus' text format.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Upper bounds of the histograms in seconds.
const SECONDS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
];

/// The metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    errors: IntCounterVec,
    tokens: IntCounterVec,
    queue: IntGauge,
    /// Connections that are open.
    pub connections: IntGauge,
    /// Jobs whose client left or whose time was over before they were done.
    pub cancelled: IntCounter,
    /// Jobs about the picture that the engine held.
    pub reused: IntCounter,
    /// From the queue to the engine.
    pub waiting: Histogram,
    /// Decoding a picture and finding its boxes.
    pub looking: Histogram,
    /// From the queue to the first token of an answer.
    pub first_token: Histogram,
    /// From the queue to the end of a job.
    pub total: Histogram,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Panics
    /// Never: the names are constant and differ.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("a name");
            registry.register(Box::new(counter.clone())).expect("once");
            counter
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a name");
            registry.register(Box::new(counter.clone())).expect("once");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("a name");
            registry.register(Box::new(gauge.clone())).expect("once");
            gauge
        };
        let seconds = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let histogram = Histogram::with_opts(options).expect("a name");
            registry
                .register(Box::new(histogram.clone()))
                .expect("once");
            histogram
        };
        Self {
            requests: counters(
                "chatrex_requests_total",
                "Requests by route and HTTP status",
                &["route", "status"],
            ),
            errors: counters("chatrex_errors_total", "Errors by code", &["code"]),
            tokens: counters("chatrex_tokens_total", "Tokens by kind", &["kind"]),
            queue: gauge("chatrex_queue_length", "Jobs that wait for the engine"),
            connections: gauge("chatrex_connections", "Open connections"),
            cancelled: counter(
                "chatrex_cancelled_total",
                "Jobs whose client left or whose time was over",
            ),
            reused: counter(
                "chatrex_pictures_reused_total",
                "Jobs about the picture that the engine held",
            ),
            waiting: seconds("chatrex_waiting_seconds", "From the queue to the engine"),
            looking: seconds("chatrex_looking_seconds", "Decoding and finding boxes"),
            first_token: seconds(
                "chatrex_first_token_seconds",
                "From the queue to the first token",
            ),
            total: seconds(
                "chatrex_total_seconds",
                "From the queue to the end of a job",
            ),
            registry,
        }
    }

    /// Counts a response.
    pub fn request(&self, route: &str, status: u16) {
        let status = status.to_string();
        self.requests.with_label_values(&[route, &*status]).inc();
    }

    /// Counts an error.
    pub fn error(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    /// Counts the tokens of an answer.
    pub fn tokens(&self, prompt: u32, completion: u32) {
        for (kind, count) in [("prompt", prompt), ("completion", completion)] {
            self.tokens.with_label_values(&[kind]).inc_by(count.into());
        }
    }

    /// The text, with `queue` jobs waiting.
    pub fn text(&self, queue: usize) -> String {
        self.queue.set(queue as i64);
        let mut text = Vec::new();
        // Writing to memory cannot fail; what was written of invalid families is still told.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Adds a duration to a histogram.
pub fn observe(histogram: &Histogram, duration: Duration) {
    histogram.observe(duration.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_by_label() {
        let metrics = Metrics::new();
        metrics.request("/healthz", 200);
        metrics.request("/healthz", 200);
        metrics.error("queue_full");
        metrics.tokens(30, 4);
        observe(&metrics.total, Duration::from_millis(20));
        let text = metrics.text(7);
        for line in [
            "chatrex_requests_total{route=\"/healthz\",status=\"200\"} 2",
            "chatrex_errors_total{code=\"queue_full\"} 1",
            "chatrex_tokens_total{kind=\"completion\"} 4",
            "chatrex_queue_length 7",
            "chatrex_total_seconds_bucket{le=\"0.025\"} 1",
            "chatrex_total_seconds_bucket{le=\"0.01\"} 0",
            "chatrex_first_token_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

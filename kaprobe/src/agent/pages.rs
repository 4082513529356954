//! What the server answers: the metrics, and whether the agent is alive and ready.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};

use crate::agent::own::{self, RecorderWatch};
use crate::agent::pulse::Pulse;
use crate::agent::shared::{Shared, lock};
use crate::metrics::exposition::{self, Exposition, OwnFacts};

/// A thread that has not moved for this time is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// How old what is shown of the agent itself may be.
const OWN_AGE: Duration = Duration::from_secs(1);

/// The statuses that are counted.
const STATUSES: [StatusCode; 6] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// A response.
pub(super) struct HttpPage {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// Makes the responses.
pub(super) struct Pages {
    shared: Arc<Shared>,
    pulse: Mutex<Pulse>,
    recorder: Mutex<Option<RecorderWatch>>,
    /// Facts that do not change.
    fixed: OwnFacts,
    metrics: Mutex<Encoded>,
    requests: [AtomicU64; STATUSES.len()],
    slow: AtomicU64,
    crowded: AtomicU64,
}

/// The metrics as they were encoded last.
struct Encoded {
    version: u64,
    at: Option<Instant>,
    body: Bytes,
}

impl Pages {
    pub(super) fn new(
        shared: Arc<Shared>,
        pulse: Pulse,
        recorder: Option<RecorderWatch>,
        fixed: OwnFacts,
    ) -> Self {
        Self {
            shared,
            pulse: Mutex::new(pulse),
            recorder: Mutex::new(recorder),
            fixed,
            metrics: Mutex::new(Encoded {
                version: 0,
                at: None,
                body: Bytes::new(),
            }),
            requests: Default::default(),
            slow: AtomicU64::default(),
            crowded: AtomicU64::default(),
        }
    }

    /// The response to a request.
    pub(super) fn page(&self, method: &Method, path: &str) -> HttpPage {
        let page = match path {
            "/metrics" | "/healthz" | "/readyz"
                if *method != Method::GET && *method != Method::HEAD =>
            {
                let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
                page.headers
                    .push((ALLOW, HeaderValue::from_static("GET, HEAD")));
                page
            }
            "/metrics" => self.metrics(),
            "/healthz" => self.health(),
            "/readyz" => self.readiness(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n",
            ),
        };
        self.count(page.status);
        page
    }

    /// Counts a request that hyper has answered itself.
    pub(super) fn count_broken(&self, why: &hyper::Error) {
        self.count(if why.is_parse_too_large() {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        } else {
            StatusCode::BAD_REQUEST
        });
    }

    /// Counts a connection that was too slow.
    pub(super) fn count_slow(&self) {
        self.slow.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that made room for another.
    pub(super) fn count_crowded(&self) {
        self.crowded.fetch_add(1, Ordering::Relaxed);
    }

    /// The thread that has not moved for the longest time, and for how long.
    pub(super) fn stillest(&self) -> (&'static str, Duration) {
        lock(&self.pulse).look(Instant::now())
    }

    fn count(&self, status: StatusCode) {
        if let Some(place) = STATUSES.iter().position(|it| *it == status) {
            self.requests[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn health(&self) -> HttpPage {
        match self.stillest() {
            (name, still) if still > STUCK => {
                let seconds = still.as_secs();
                let why = format!("{name} has not moved for {seconds} s\n");
                text(StatusCode::SERVICE_UNAVAILABLE, why)
            }
            _ => text(StatusCode::OK, "alive\n"),
        }
    }

    /// The hooks are attached before the server starts, so only the connections may be missing.
    fn readiness(&self) -> HttpPage {
        match self.shared.connections() {
            Some(_) => text(StatusCode::OK, "ready\n"),
            None => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the connections were not counted yet\n",
            ),
        }
    }

    /// The metrics. They are encoded once for all who ask between two changes.
    fn metrics(&self) -> HttpPage {
        let mut encoded = lock(&self.metrics);
        let (now, version) = (Instant::now(), self.shared.version());
        let is_old = encoded.at.is_none_or(|at| now - at >= OWN_AGE);
        if is_old || encoded.version != version {
            // A version that is newer than what is encoded only has it encoded again.
            encoded.version = version;
            encoded.at = Some(now);
            match exposition::encode(self.exposition()) {
                Ok(text) => encoded.body = text.into(),
                Err(_) => return text(StatusCode::SERVICE_UNAVAILABLE, "cannot encode\n"),
            }
        }
        HttpPage {
            status: StatusCode::OK,
            headers: vec![(
                CONTENT_TYPE,
                HeaderValue::from_static(exposition::CONTENT_TYPE),
            )],
            body: encoded.body.clone(),
        }
    }

    fn exposition(&self) -> Exposition {
        let requests = STATUSES.iter().zip(&self.requests);
        let requests = requests.map(|(it, count)| (it.as_u16(), count.load(Ordering::Relaxed)));
        Exposition {
            counted: self.shared.counted(),
            connections: self.shared.connections(),
            own: OwnFacts {
                snapshots_failed: self.shared.failed_snapshots(),
                snapshot_pause: self.shared.pause(),
                recorder: lock(&self.recorder).as_mut().map(RecorderWatch::look),
                reloaded: self.shared.reloaded(),
                requests: requests.collect(),
                cut: vec![
                    ("slow", self.slow.load(Ordering::Relaxed)),
                    ("crowded", self.crowded.load(Ordering::Relaxed)),
                ],
                process: own::process(process::id()),
                reader: self.shared.reader().map(own::process).unwrap_or_default(),
                ..self.fixed.clone()
            },
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> HttpPage {
    HttpPage {
        status,
        headers: vec![
            (
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            ),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
        body: body.into(),
    }
}

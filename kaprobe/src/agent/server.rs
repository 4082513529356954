//! The HTTP server of the metrics. It runs on a thread of its own, and the trace does not wait
//! for it.
//!
//! A connection serves one request, and has little time for it: one that sends or reads slowly
//! is cut. If there are too many, the oldest makes room, as a healthy one is the first to end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::{self, AbortHandle};
use tokio::time;

use crate::agent::pages::{HttpPage, Pages};
use crate::exit;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// How long a connection may take in all.
const TIME: Duration = Duration::from_secs(10);

/// Most bytes of the head of a request. hyper takes no less.
const MAX_HEAD: usize = 8 * 1024;

/// Most fields of the head of a request.
const MAX_FIELDS: usize = 64;

/// The pause if no connection can be accepted: there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the port.
///
/// # Errors
/// If it can't be opened.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener
        .map_err(|why| exit::Error::failure(format!("cannot listen on {address}: {why}")).into())
}

/// Serves requests until the process ends.
///
/// # Errors
/// If the port can't be watched.
pub(super) async fn serve(listener: TcpListener, pages: Arc<Pages>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot watch a port")?;
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|it| !it.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
            pages.count_crowded();
        }
        let served = task::spawn(connection(stream, Arc::clone(&pages)));
        open.push_back(served.abort_handle());
    }
}

/// Serves one request.
async fn connection(stream: TcpStream, pages: Arc<Pages>) {
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS);
    let service = service_fn(|request: Request<Incoming>| {
        let page = pages.page(request.method(), request.uri().path());
        async { Ok::<_, Infallible>(response(page)) }
    });
    let served = http.serve_connection(TokioIo::new(stream), service);
    match time::timeout(TIME, served).await {
        Err(_) => pages.count_slow(),
        Ok(Err(why)) if why.is_timeout() => pages.count_slow(),
        // hyper has answered it with 400 or 431.
        Ok(Err(why)) if why.is_parse() => pages.count_broken(&why),
        // Done, or the other end has gone.
        Ok(_) => {}
    }
}

fn response(page: HttpPage) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    for (name, value) in page.headers {
        headers.insert(name, value);
    }
    response
}

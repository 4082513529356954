//! Asks an HTTP server, as plainly as it goes; and a server that keeps what is posted to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};

use crate::wait::HANG;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// The lines of the head, without the first.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Gets a page from a server in this thread's network namespace.
pub fn get(address: SocketAddr, path: &str) -> Result<HttpResponse> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    send(address, request.as_bytes())
}

/// Sends bytes to a server, and reads what comes until it closes.
pub fn send(address: SocketAddr, request: &[u8]) -> Result<HttpResponse> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HANG))?;
    // A server that has refused the rest may have closed. This end stays open: for some servers,
    // a client that sends no more has given up.
    let _refused = stream.write_all(request);
    read(stream)
}

/// Reads a response until the server closes.
pub fn read(mut stream: TcpStream) -> Result<HttpResponse> {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes)?;
    let response = parse(&text);
    // A server that has not read all of a request resets the connection after its answer.
    match response {
        Some(response) => Ok(response),
        None => Err(ended.err().map_or_else(
            || anyhow::anyhow!("no response: {text:?}"),
            anyhow::Error::from,
        )),
    }
}

fn parse(text: &str) -> Option<HttpResponse> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (first, head) = head.split_once("\r\n").unwrap_or((head, ""));
    Some(HttpResponse {
        status: first.split(' ').nth(1)?.parse().ok()?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

impl HttpResponse {
    /// The sum of the samples of a metric whose labels have this part.
    pub fn metric(&self, name: &str, part: &str) -> Result<f64> {
        let mut sum = None;
        for line in self.body.lines() {
            let Some(rest) = line.strip_prefix(name) else {
                continue;
            };
            if !rest.starts_with(['{', ' ']) || !rest.contains(part) {
                continue;
            }
            let (_, value) = rest.rsplit_once(' ').context("no value")?;
            *sum.get_or_insert(0.0) += value.parse::<f64>().context(line.to_owned())?;
        }
        sum.with_context(|| format!("no {name} with {part:?}"))
    }
}

/// A server on loopback that keeps what is posted to it. Its threads end with the process.
pub struct PostServer {
    /// Where it listens.
    pub address: SocketAddr,
    posted: Arc<Mutex<Posted>>,
}

/// What was posted.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// The first line of each request.
    pub requests: Vec<String>,
    /// The bodies, one after the other.
    pub text: String,
}

impl PostServer {
    /// Starts the server in this thread's network namespace.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let server = Self {
            address: listener.local_addr()?,
            posted: Arc::default(),
        };
        let posted = Arc::clone(&server.posted);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let posted = Arc::clone(&posted);
                // What is broken is missed by who waits for it.
                thread::spawn(move || keep(stream, &posted));
            }
        });
        Ok(server)
    }

    /// What was posted so far.
    pub fn posted(&self) -> Posted {
        let posted = self.posted.lock();
        posted.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps the bodies of a connection's requests, until it ends.
fn keep(stream: TcpStream, posted: &Mutex<Posted>) -> Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if requests.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            ensure!(requests.read_line(&mut line)? > 0, "no end of the head");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let mut kept = posted.lock().unwrap_or_else(PoisonError::into_inner);
        kept.requests.push(first.trim_end().to_owned());
        kept.text.push_str(&String::from_utf8(body)?);
        drop(kept);
        answers.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}

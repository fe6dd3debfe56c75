//! A mirror on the loopback that does what a test tells it, well or badly.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// A request as a test sees it.
pub(crate) struct Asked<'a> {
    /// The path, with a leading slash.
    pub(crate) path: &'a str,
    /// How often it was asked for before.
    pub(crate) before: usize,
    /// The headers.
    pub(crate) headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// Returns a header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns whether an index is asked for.
    pub(crate) fn is_index(&self) -> bool {
        self.path.ends_with("APKINDEX.tar.gz")
    }
}

/// What the mirror does with a request.
pub(crate) enum Does {
    /// Serves the file, with ranges and conditions.
    Serve,
    /// Serves a file of another place.
    ServeFrom(PathBuf),
    /// Answers with a status.
    Status(u16),
    /// Sends so many bytes and closes, although it promised all.
    Truncate(usize),
    /// Sends so many bytes and then nothing more.
    Stall(usize),
    /// Sends one byte now and then.
    Trickle,
    /// Never answers.
    Silence,
    /// Resets the connection after so many bytes.
    Reset(usize),
    /// Says that the file is longer or shorter by so much, and sends as much as it said.
    Lie(i64),
    /// Sends these bytes as the file.
    Bytes(Vec<u8>),
    /// Sends these bytes without saying how many.
    Unsized(Vec<u8>),
    /// Sends these bytes of another file, and closes, although it promised as many as the file has.
    Other(Vec<u8>),
    /// Sends the file and so many bytes more, without saying how many.
    More(usize),
    /// Sends so many bytes of what is asked for, and closes, although it promised all.
    Part(usize),
    /// Sends somewhere else, with a status.
    Redirect(u16, String),
    /// Wants a name and a password.
    Ask,
}

type Behaviour = dyn Fn(&Asked<'_>) -> Does + Send + Sync;

struct Shared {
    folder: PathBuf,
    latency: Duration,
    behaviour: Box<Behaviour>,
    counts: Mutex<HashMap<String, usize>>,
    log: Mutex<Vec<String>>,
}

/// A running mirror; it ends when this is dropped.
pub(crate) struct Mirror {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Mirror {
    /// Serves a folder well.
    pub(crate) fn of(folder: &Path) -> Self {
        Self::with(folder, |_| Does::Serve)
    }

    /// Serves a folder as the test says.
    pub(crate) fn with(
        folder: &Path,
        behaviour: impl Fn(&Asked<'_>) -> Does + Send + Sync + 'static,
    ) -> Self {
        Self::slow(folder, Duration::ZERO, behaviour)
    }

    /// The same with a delay before each answer.
    pub(crate) fn slow(
        folder: &Path,
        latency: Duration,
        behaviour: impl Fn(&Asked<'_>) -> Does + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            latency,
            behaviour: Box::new(behaviour),
            counts: Mutex::default(),
            log: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(listener, &served, stopped));
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns the address, without a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address with a name and a password.
    pub(crate) fn url_for(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@{}", self.address)
    }

    /// Returns the paths asked for so far, in order.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.log.lock().expect("no panic").clone()
    }

    /// Returns how many package files were asked for so far.
    pub(crate) fn packages_asked(&self) -> usize {
        let log = self.log();
        log.iter().filter(|path| path.ends_with(".apk")).count()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: std::net::TcpListener,
    shared: &Arc<Shared>,
    stopped: tokio::sync::oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let accept = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(stream, Arc::clone(shared)));
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let reset = Arc::new(tokio::sync::Notify::new());
    let service = {
        let reset = Arc::clone(&reset);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
            async move { Ok::<_, Infallible>(answer(&shared, &request, reset).await) }
        })
    };
    // Without lingering a close with unsent or unread data is a reset.
    let socket = stream.into_std().expect("a socket");
    let second = socket.try_clone().expect("a second handle");
    let stream = tokio::net::TcpStream::from_std(socket).expect("a socket");
    let io = hyper_util::rt::TokioIo::new(stream);
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    tokio::select! {
        _ = connection => {}
        () = reset.notified() => {
            let second = tokio::net::TcpStream::from_std(second);
            if let Ok(second) = second {
                let _ = second.set_zero_linger();
            }
        }
    }
}

async fn answer(
    shared: &Shared,
    request: &Request<Incoming>,
    reset: Arc<tokio::sync::Notify>,
) -> Response<Script> {
    let path = request.uri().path().to_owned();
    let before = {
        let mut counts = shared.counts.lock().expect("no panic");
        let count = counts.entry(path.clone()).or_default();
        *count += 1;
        *count - 1
    };
    shared.log.lock().expect("no panic").push(path.clone());
    if !shared.latency.is_zero() {
        tokio::time::sleep(shared.latency).await;
    }
    let asked = Asked {
        path: &path,
        before,
        headers: request.headers(),
    };
    let does = (shared.behaviour)(&asked);
    let file = shared.folder.join(path.trim_start_matches('/'));
    let whole = || std::fs::read(&file).map(Bytes::from);
    match does {
        Does::Serve => send_file(&file, &asked),
        Does::ServeFrom(other) => send_file(&other, &asked),
        Does::Status(code) => status(code),
        Does::Silence => std::future::pending().await,
        Does::Redirect(code, to) => {
            let mut response = status(code);
            let to = HeaderValue::from_str(&to).expect("a location");
            response.headers_mut().insert("location", to);
            response
        }
        Does::Ask => {
            let mut response = status(401);
            let basic = HeaderValue::from_static("Basic realm=\"mirror\"");
            response.headers_mut().insert("www-authenticate", basic);
            response
        }
        Does::Part(count) => {
            let mut response = send_file(&file, &asked);
            let steps = &mut response.body_mut().steps;
            if let Some(Step::Data(all)) = steps.front_mut() {
                all.truncate(count);
                steps.push_back(Step::Fail);
            }
            response
        }
        Does::Unsized(bytes) => Response::new(Script {
            steps: [Step::Data(bytes.into())].into(),
            timer: None,
        }),
        Does::Bytes(bytes) => sized(bytes.len() as u64, vec![Step::Data(bytes.into())]),
        bad => match whole() {
            Err(_) => status(404),
            Ok(all) => misbehave(bad, &all, reset),
        },
    }
}

fn misbehave(does: Does, all: &Bytes, reset: Arc<tokio::sync::Notify>) -> Response<Script> {
    let length = all.len() as u64;
    let start = |count: usize| Step::Data(all.slice(..count.min(all.len())));
    match does {
        Does::Truncate(count) => sized(length, vec![start(count), Step::Fail]),
        Does::Stall(count) => sized(length, vec![start(count), Step::Wait]),
        Does::Other(bytes) => sized(length, vec![Step::Data(bytes.into()), Step::Fail]),
        Does::More(count) => {
            let mut sent = all.to_vec();
            sent.resize(all.len() + count, b'x');
            Response::new(Script {
                steps: [Step::Data(sent.into())].into(),
                timer: None,
            })
        }
        Does::Trickle => sized(length, vec![Step::Trickle(all.clone())]),
        Does::Reset(count) => sized(length, vec![start(count), Step::Reset(reset)]),
        Does::Lie(by) => {
            let told = length.saturating_add_signed(by);
            let mut sent = all.to_vec();
            sent.resize(told as usize, b'x');
            sized(told, vec![Step::Data(sent.into())])
        }
        _ => status(500),
    }
}

fn status(code: u16) -> Response<Script> {
    let mut response = sized(0, Vec::new());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

fn sized(length: u64, steps: Vec<Step>) -> Response<Script> {
    let mut response = Response::new(Script {
        steps: steps.into(),
        timer: None,
    });
    let headers = response.headers_mut();
    headers.insert("content-length", HeaderValue::from(length));
    response
}

/// Serves a file as a good server does: validators, conditions, ranges.
fn send_file(path: &Path, asked: &Asked<'_>) -> Response<Script> {
    let Ok(bytes) = std::fs::read(path) else {
        return status(404);
    };
    let bytes = Bytes::from(bytes);
    let modified = std::fs::metadata(path).and_then(|meta| meta.modified());
    let modified = httpdate::fmt_http_date(modified.unwrap_or(SystemTime::UNIX_EPOCH));
    let tag = format!("\"{}-{}\"", bytes.len(), modified.len());
    let same_tag = asked.header("if-none-match").map(|tags| tags == tag);
    let same_time = asked.header("if-modified-since").map(|at| at == modified);
    if same_tag.or(same_time) == Some(true) {
        return status(304);
    }
    let from = asked.header("range").and_then(|range| {
        let (from, _) = range.strip_prefix("bytes=")?.split_once('-')?;
        from.parse::<usize>().ok()
    });
    let from = from.filter(|from| *from < bytes.len());
    let part = bytes.slice(from.unwrap_or(0)..);
    let mut response = sized(part.len() as u64, vec![Step::Data(part)]);
    if let Some(from) = from {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
        let range = HeaderValue::from_str(&range).expect("a range");
        response.headers_mut().insert("content-range", range);
    }
    for (name, value) in [("last-modified", modified), ("etag", tag)] {
        let value = HeaderValue::from_str(&value).expect("a header");
        response.headers_mut().insert(name, value);
    }
    response
}

/// What is sent, step by step.
struct Script {
    steps: VecDeque<Step>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

enum Step {
    Data(Bytes),
    /// One byte every tenth of a second.
    Trickle(Bytes),
    Wait,
    Fail,
    Reset(Arc<tokio::sync::Notify>),
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // A moment between the pieces, so that what was written is really sent.
        if let Some(timer) = &mut self.timer {
            match timer.as_mut().poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.timer = None,
            }
        }
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Step::Data(bytes)) => {
                if !self.steps.is_empty() {
                    let pause = Duration::from_millis(20);
                    self.timer = Some(Box::pin(tokio::time::sleep(pause)));
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Step::Trickle(mut bytes)) => {
                if bytes.is_empty() {
                    return Poll::Ready(None);
                }
                let first = bytes.split_to(1);
                self.steps.push_front(Step::Trickle(bytes));
                let pause = Duration::from_millis(100);
                self.timer = Some(Box::pin(tokio::time::sleep(pause)));
                Poll::Ready(Some(Ok(Frame::data(first))))
            }
            Some(Step::Wait) => {
                self.steps.push_front(Step::Wait);
                Poll::Pending
            }
            Some(Step::Fail) => Poll::Ready(Some(Err(io::Error::other("told to break off")))),
            Some(Step::Reset(reset)) => {
                reset.notify_one();
                self.steps.push_front(Step::Wait);
                Poll::Pending
            }
        }
    }
}

//! A directory over HTTP, for a team or a test: `GET` and `HEAD`, ranges, conditional requests.
//!
//! Paths are resolved beneath the directory, links included, so nothing outside of it can be
//! reached. Nothing is ever written, listed or run. Each answer is one file as it was when it was
//! opened; files that are replaced by renaming are always sent whole.

use crate::root::{Root, RootError};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncSeekExt, ReadBuf};
use tokio::sync::Semaphore;

/// Connections at a time; more wait. Each costs a descriptor and a buffer.
const CONNECTIONS: usize = 512;
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read at a time.
const BLOCK: u64 = 64 << 10;

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory cannot be opened.
    #[error(transparent)]
    Directory(#[from] RootError),
    /// The address cannot be used.
    #[error("cannot listen on {address}: {}", crate::root::cause(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server stopped.
    #[error("the server stopped: {}", crate::root::cause(.0))]
    Stopped(#[source] io::Error),
}

/// A directory that is ready to be served.
pub struct Server {
    root: Arc<Root>,
    listener: TcpListener,
}

/// Hears of each answer: method, path as asked for, status.
pub type Log = Arc<dyn Fn(&str, &str, u16) + Send + Sync>;

impl Server {
    /// Opens the directory and takes the address.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn new(directory: &Path, address: SocketAddr) -> Result<Self, ServeError> {
        let root = Root::open(directory)?;
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|source| ServeError::Listen { address, source })?;
        Ok(Self {
            root: Arc::new(root),
            listener,
        })
    }

    /// Returns the address, with the port that the system chose if none was asked for.
    ///
    /// # Errors
    /// [`ServeError::Stopped`].
    pub fn address(&self) -> Result<SocketAddr, ServeError> {
        self.listener.local_addr().map_err(ServeError::Stopped)
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// [`ServeError::Stopped`] if no connection can be taken any more.
    pub fn run(self, log: Log) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Stopped)?;
        runtime.block_on(self.accept(log))
    }

    async fn accept(self, log: Log) -> Result<(), ServeError> {
        let listener =
            tokio::net::TcpListener::from_std(self.listener).map_err(ServeError::Stopped)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // A client that went away, or no descriptors left for a moment.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (root, log) = (Arc::clone(&self.root), Arc::clone(&log));
            tokio::spawn(async move {
                let _place = place;
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (root, log) = (Arc::clone(&root), Arc::clone(&log));
                    async move {
                        let response = answer(&root, &request).await;
                        let status = response.status().as_u16();
                        log(request.method().as_str(), request.uri().path(), status);
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                // What goes wrong on one connection is the client's to notice.
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }
}

async fn answer(root: &Root, request: &Request<Incoming>) -> Response<FileBody> {
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            return response;
        }
    };
    let found = relative(request.uri().path()).and_then(|path| open(root, &path));
    let Some((file, meta)) = found else {
        return plain(StatusCode::NOT_FOUND);
    };
    let size = meta.len();
    let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let tag = format!(
        "\"{:x}-{:x}-{:x}\"",
        meta.ino(),
        size,
        i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec())
    );
    let headers = request.headers();
    let mut response = if is_unchanged(headers, &tag, modified) {
        plain(StatusCode::NOT_MODIFIED)
    } else {
        match range(headers, &tag, modified, size) {
            Wanted::Whole => whole(file, size),
            Wanted::Part(from, to) => part(file, from, to, size).await,
            Wanted::Impossible => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE);
                put(
                    &mut response,
                    header::CONTENT_RANGE,
                    &format!("bytes */{size}"),
                );
                response
            }
        }
    };
    put(&mut response, header::ETAG, &tag);
    put(
        &mut response,
        header::LAST_MODIFIED,
        &httpdate::fmt_http_date(modified),
    );
    put(&mut response, header::ACCEPT_RANGES, "bytes");
    if head {
        // The length is that of what `GET` would send.
        let length = response.body().left;
        put(&mut response, header::CONTENT_LENGTH, &length.to_string());
        *response.body_mut() = FileBody::empty();
    }
    response
}

fn put(response: &mut Response<FileBody>, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn plain(status: StatusCode) -> Response<FileBody> {
    let mut response = Response::new(FileBody::empty());
    *response.status_mut() = status;
    response
}

fn whole(file: File, size: u64) -> Response<FileBody> {
    let mut response = Response::new(FileBody::new(file, size));
    put(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    response
}

async fn part(file: File, from: u64, to: u64, size: u64) -> Response<FileBody> {
    let mut file = tokio::fs::File::from_std(file);
    if file.seek(io::SeekFrom::Start(from)).await.is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let mut response = Response::new(FileBody {
        file: Some(file),
        left: to - from + 1,
    });
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    put(
        &mut response,
        header::CONTENT_RANGE,
        &format!("bytes {from}-{to}/{size}"),
    );
    put(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    response
}

/// Returns the path of a request below the directory; `None` for one that leads out of it.
fn relative(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = after.get(..2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    let path = String::from_utf8(bytes).ok()?;
    let mut parts = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name if name.contains('\0') => return None,
            name => parts.push(name),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// Opens a regular file.
fn open(root: &Root, path: &str) -> Option<(File, std::fs::Metadata)> {
    let opened = root.open_file(path).ok()??;
    let file = File::from(opened.fd()?.try_clone_to_owned().ok()?);
    let meta = file.metadata().ok()?;
    meta.is_file().then_some((file, meta))
}

fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether the client has the file already (RFC 9110, 13.2.2).
fn is_unchanged(headers: &HeaderMap, tag: &str, modified: SystemTime) -> bool {
    if let Some(tags) = text(headers, &header::IF_NONE_MATCH) {
        let mut tags = tags
            .split(',')
            .map(|one| one.trim().trim_start_matches("W/"));
        return tags.any(|one| one == tag || one == "*");
    }
    let since = text(headers, &header::IF_MODIFIED_SINCE);
    since
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .is_some_and(|since| whole_seconds(modified) <= since)
}

/// Dates of HTTP have no fractions.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Impossible,
}

/// Reads `Range`. What is malformed, or asks for several parts, gets the whole file.
fn range(headers: &HeaderMap, tag: &str, modified: SystemTime, size: u64) -> Wanted {
    let Some(wanted) = text(headers, &header::RANGE).and_then(|r| r.strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    if let Some(condition) = text(headers, &header::IF_RANGE) {
        let same_date = || {
            httpdate::parse_http_date(condition).is_ok_and(|date| date == whole_seconds(modified))
        };
        if condition != tag && !same_date() {
            return Wanted::Whole;
        }
    }
    let Some((from, to)) = wanted.trim().split_once('-') else {
        return Wanted::Whole;
    };
    let last = size.checked_sub(1);
    let part = match (from.trim().parse::<u64>(), to.trim()) {
        (Ok(from), "") => last.map(|last| (from, last)),
        (Ok(from), to) => match to.parse::<u64>() {
            Ok(to) if to >= from => last.map(|last| (from, to.min(last))),
            _ => return Wanted::Whole,
        },
        (Err(_), to) if from.trim().is_empty() => match to.parse::<u64>() {
            Ok(count) => last
                .filter(|_| count > 0)
                .map(|last| (size.saturating_sub(count), last)),
            Err(_) => return Wanted::Whole,
        },
        _ => return Wanted::Whole,
    };
    match part {
        Some((from, to)) if from <= to => Wanted::Part(from, to),
        _ => Wanted::Impossible,
    }
}

/// A file on its way out.
struct FileBody {
    file: Option<tokio::fs::File>,
    left: u64,
}

impl FileBody {
    fn new(file: File, size: u64) -> Self {
        Self {
            file: Some(tokio::fs::File::from_std(file)),
            left: size,
        }
    }

    fn empty() -> Self {
        Self {
            file: None,
            left: 0,
        }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let Some(file) = this.file.as_mut().filter(|_| this.left > 0) else {
            return Poll::Ready(None);
        };
        let mut block = vec![0; this.left.min(BLOCK) as usize];
        let mut buffer = ReadBuf::new(&mut block);
        let read = ready!(Pin::new(file).poll_read(context, &mut buffer));
        let count = buffer.filled().len();
        if let Err(error) = read {
            return Poll::Ready(Some(Err(error)));
        }
        if count == 0 {
            // It shrank; ending the connection is the only way to say so.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        block.truncate(count);
        this.left -= count as u64;
        Poll::Ready(Some(Ok(Frame::data(block.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, wanted) in [
            ("/x86_64/APKINDEX.tar.gz", Some("x86_64/APKINDEX.tar.gz")),
            ("//a/./b", Some("a/b")),
            ("/a%2Bb%20c", Some("a+b c")),
            ("/", None),
            ("/..", None),
            ("/a/../../etc/passwd", None),
            ("/%2e%2e/etc/passwd", None),
            ("/a%00b", None),
            ("/%zz", None),
            ("/%f", None),
        ] {
            assert_eq!(relative(path).as_deref(), wanted, "{path}");
        }
    }

    #[test]
    fn ranges_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let ask = |range_text: &str, condition: Option<&str>, size| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range_text.parse().unwrap());
            if let Some(condition) = condition {
                headers.insert(header::IF_RANGE, condition.parse().unwrap());
            }
            range(&headers, "\"t\"", at, size)
        };
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 0)),
            ("bytes=5-", Wanted::Part(5, 9)),
            ("bytes=5-100", Wanted::Part(5, 9)),
            ("bytes=-3", Wanted::Part(7, 9)),
            ("bytes=-30", Wanted::Part(0, 9)),
            ("bytes=10-", Wanted::Impossible),
            ("bytes=-0", Wanted::Impossible),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=x", Wanted::Whole),
        ] {
            assert_eq!(ask(text, None, 10), wanted, "{text}");
        }
        assert_eq!(ask("bytes=0-", None, 0), Wanted::Impossible);
        assert_eq!(ask("bytes=1-", Some("\"t\""), 10), Wanted::Part(1, 9));
        assert_eq!(ask("bytes=1-", Some("\"u\""), 10), Wanted::Whole);
        let date = httpdate::fmt_http_date(at);
        assert_eq!(ask("bytes=1-", Some(&date), 10), Wanted::Part(1, 9));
    }
}

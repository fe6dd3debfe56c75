//! HTTP: bounded, retried where that can help, with apk's words for what went wrong
//! (formats.md, chapter 12; cli.md, 1.16).

use crate::config::Settings;
use reqwest::header::{
    CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Client, Response, StatusCode};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Requests under way at the same time: enough to hide the latency of a mirror, few enough that
/// no mirror takes it for an attack.
const CONCURRENT: usize = 6;

/// How often a request is tried; only what may pass is tried again.
const ATTEMPTS: u32 = 3;

/// The wait before the second attempt; it doubles.
const BACK_OFF: Duration = Duration::from_millis(200);

/// An index to fetch.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// Its address.
    pub url: String,
    /// The copy in the cache, to ask only for what is newer.
    pub copy: Option<PathBuf>,
}

/// What a server said of an index.
#[derive(Debug)]
pub enum IndexAnswer {
    /// The copy is current; its time was set to now.
    Unchanged,
    /// A new index, not verified.
    New {
        /// The file.
        bytes: Vec<u8>,
        /// Where the copy belongs.
        copy: Option<PathBuf>,
    },
    /// It cannot be had; apk's words.
    Failed(String),
}

/// Why something could not be fetched; the texts are apk's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct HttpError {
    text: String,
    again: bool,
}

impl HttpError {
    fn new(text: impl Into<String>, again: bool) -> Self {
        Self {
            text: text.into(),
            again,
        }
    }

    fn status(status: StatusCode) -> Self {
        let known = matches!(status.as_u16(), 400 | 401 | 403..=408 | 500..=504);
        let text = match (known, status.as_u16()) {
            (true, 408) => "HTTP 408: Timeout".to_owned(),
            (true, code) => {
                format!(
                    "HTTP {code}: {}",
                    status.canonical_reason().unwrap_or_default()
                )
            }
            (false, _) => "HTTP: unrecognized server error".to_owned(),
        };
        Self::new(
            text,
            status.is_server_error() || matches!(status.as_u16(), 408 | 429),
        )
    }

    fn request(error: &reqwest::Error) -> Self {
        let mut text = None;
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<std::io::Error>()
                && io.raw_os_error().is_some()
            {
                text = Some(crate::root::cause(io));
            }
            let words = inner.to_string();
            if words.contains("dns error") {
                text.get_or_insert_with(|| "DNS: name does not exist".to_owned());
            } else if words.contains("invalid peer certificate") {
                let host = words.contains("NotValidForName");
                let why = if host {
                    "TLS: server hostname mismatch"
                } else {
                    "TLS: server certificate not trusted"
                };
                return Self::new(why, false);
            } else if words.contains("redirect") && error.is_redirect() {
                return Self::new("HTTP: too many redirects", false);
            }
            source = inner.source();
        }
        if error.is_timeout() {
            return Self::new("Connection timed out", true);
        }
        if error.is_builder() {
            return Self::new("invalid URL (check your repositories file)", false);
        }
        let text = text.unwrap_or_else(|| {
            if error.is_body() || error.is_decode() {
                "unexpected end of file".to_owned()
            } else {
                "remote server returned error (try 'apk update')".to_owned()
            }
        });
        let final_answer = text.starts_with("DNS: name does not exist");
        Self::new(text, !final_answer)
    }
}

/// Fetches indexes, several at a time; the answers are in the order of the requests.
pub fn fetch_indexes(
    settings: &Settings,
    requests: Vec<IndexRequest>,
    limit: u64,
) -> Vec<IndexAnswer> {
    let count = requests.len();
    let run = || -> Result<Vec<IndexAnswer>, HttpError> {
        let session = Session::new(settings)?;
        let force = settings.force_refresh;
        Ok(session.run(requests, async |session, request| {
            session.index(&request, force, limit).await
        }))
    };
    run().unwrap_or_else(|error| {
        (0..count)
            .map(|_| IndexAnswer::Failed(error.to_string()))
            .collect()
    })
}

/// A package file to fetch.
#[derive(Clone, Debug)]
pub struct Download {
    /// Its address.
    pub url: String,
    /// Where to put it; it is replaced if it exists.
    pub target: PathBuf,
    /// Size in bytes that the index states; more is not read.
    pub size: u64,
}

/// Fetches files, the largest first, several at a time; the answers are in the order given.
///
/// What arrives is not verified; it is complete by its stated size, or an error.
pub fn fetch_files(settings: &Settings, downloads: Vec<Download>) -> Vec<Result<(), HttpError>> {
    let count = downloads.len();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| std::cmp::Reverse(downloads[*at].size));
    let sorted = order.iter().map(|at| downloads[*at].clone()).collect();
    let answers = match Session::new(settings) {
        Ok(session) => session.run(sorted, async |session, download| {
            session.file(&download).await
        }),
        Err(error) => vec![Err(error); count],
    };
    let mut placed: Vec<Result<(), HttpError>> = vec![Ok(()); count];
    for (at, answer) in order.into_iter().zip(answers) {
        placed[at] = answer;
    }
    placed
}

/// A client with its runtime.
struct Session {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Session {
    fn new(settings: &Settings) -> Result<Self, HttpError> {
        let wrong = |error: reqwest::Error| HttpError::request(&error);
        let patience = Duration::from_secs(settings.timeout.max(1));
        let mut builder = Client::builder()
            .user_agent(concat!("ibex/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(patience)
            // Progress, not the whole answer, must not take longer.
            .read_timeout(patience)
            .redirect(reqwest::redirect::Policy::limited(10))
            .danger_accept_invalid_certs(!settings.check_certificate);
        if let Ok(pem) = std::fs::read("/etc/apk/ca.pem") {
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(wrong)?;
            builder = builder.tls_built_in_root_certs(false);
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(wrong)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| HttpError::new(crate::root::cause(&error), false))?;
        Ok(Self { client, runtime })
    }

    /// Runs a task for each item, a bounded number at a time.
    fn run<T, A>(&self, items: Vec<T>, task: impl AsyncFn(&Self, T) -> A) -> Vec<A> {
        let permits = tokio::sync::Semaphore::new(CONCURRENT);
        let work = items.into_iter().map(async |item| {
            let _permit = permits.acquire().await;
            task(self, item).await
        });
        self.runtime.block_on(join_all(work))
    }

    async fn index(&self, request: &IndexRequest, force: bool, limit: u64) -> IndexAnswer {
        let mut headers = HeaderMap::new();
        let note = request.copy.as_deref().map(Validators::path);
        if force {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        } else if let (Some(copy), Some(note)) = (&request.copy, &note)
            && copy.exists()
        {
            Validators::read(note).apply(&mut headers);
        }
        let answer = self.retry(&request.url, &headers, async |response: Response| {
            if response.status() == StatusCode::NOT_MODIFIED {
                return Ok(None);
            }
            let validators = Validators::of(response.headers());
            Ok(Some((self.body(response, limit).await?, validators)))
        });
        match answer.await {
            Ok(None) => {
                if let Some(copy) = &request.copy {
                    // Its age counts from the last check.
                    let _ = std::fs::File::options()
                        .append(true)
                        .open(copy)
                        .and_then(|file| file.set_modified(SystemTime::now()));
                }
                IndexAnswer::Unchanged
            }
            Ok(Some((bytes, validators))) => {
                if let Some(note) = &note {
                    validators.write(note);
                }
                IndexAnswer::New {
                    bytes,
                    copy: request.copy.clone(),
                }
            }
            Err(error) => IndexAnswer::Failed(error.to_string()),
        }
    }

    async fn file(&self, download: &Download) -> Result<(), HttpError> {
        let headers = HeaderMap::new();
        let work = self.retry(&download.url, &headers, async |response: Response| {
            if response.status() == StatusCode::NOT_FOUND {
                return Err(HttpError::status(StatusCode::NOT_FOUND));
            }
            self.save(response, download).await
        });
        work.await
    }

    /// Sends a request until it is answered, or cannot be.
    async fn retry<A>(
        &self,
        url: &str,
        headers: &HeaderMap,
        take: impl AsyncFn(Response) -> Result<A, HttpError>,
    ) -> Result<A, HttpError> {
        let mut wait = BACK_OFF;
        let mut attempt = 1;
        loop {
            let sent = self.client.get(url).headers(headers.clone()).send().await;
            let result = match sent {
                Err(error) => Err(HttpError::request(&error)),
                Ok(response) => {
                    let status = response.status();
                    if status.is_success() || status == StatusCode::NOT_MODIFIED {
                        take(response).await
                    } else {
                        Err(HttpError::status(status))
                    }
                }
            };
            match result {
                Err(error) if error.again && attempt < ATTEMPTS => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn body(&self, mut response: Response, limit: u64) -> Result<Vec<u8>, HttpError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| HttpError::request(&e))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(HttpError::new("the answer is larger than allowed", false));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn save(&self, mut response: Response, download: &Download) -> Result<(), HttpError> {
        let local = |error: std::io::Error| HttpError::new(crate::root::cause(&error), false);
        let (mut file, temporary) = super::cache::begin(&download.target).map_err(local)?;
        let mut result = Ok(());
        let mut count = 0;
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) => {
                    count += chunk.len() as u64;
                    let written = file.write_all(&chunk).map_err(local);
                    result = written.and_then(|()| {
                        if download.size > 0 && count > download.size {
                            Err(HttpError::new("file integrity error", true))
                        } else {
                            Ok(())
                        }
                    });
                }
                Err(error) => result = Err(HttpError::request(&error)),
            }
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() && download.size > 0 && count < download.size {
            result = Err(HttpError::new("unexpected end of file", true));
        }
        let kept = match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(std::io::Error::other(error.to_string())),
        };
        let finished = super::cache::finish(kept, &temporary, &download.target);
        result.and_then(|()| finished.map_err(local))
    }
}

/// Waits for all futures on one thread, results in order.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    use std::pin::Pin;
    use std::task::Poll;
    let mut pending: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        let mut open = false;
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Some(output),
                    Poll::Pending => open = true,
                }
            }
        }
        if open {
            return Poll::Pending;
        }
        Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

/// What a server gave to recognise an index by, kept beside the copy.
#[derive(Clone, Debug, Default)]
struct Validators {
    etag: Option<String>,
    modified: Option<String>,
}

impl Validators {
    fn path(copy: &Path) -> PathBuf {
        let mut name = copy.file_name().unwrap_or_default().to_owned();
        name.push(".validators");
        // Hidden: apk's `cache clean` removes files that it does not know.
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        copy.with_file_name(hidden)
    }

    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
        };
        Self {
            etag: text(ETAG).map(str::to_owned),
            modified: text(LAST_MODIFIED).map(str::to_owned),
        }
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut lines = text
            .lines()
            .map(|line| (!line.is_empty()).then(|| line.to_owned()));
        Self {
            etag: lines.next().flatten(),
            modified: lines.next().flatten(),
        }
    }

    fn write(&self, path: &Path) {
        let text = format!(
            "{}\n{}\n",
            self.etag.as_deref().unwrap_or_default(),
            self.modified.as_deref().unwrap_or_default()
        );
        // Without it the next request is not conditional, that is all.
        let _ = super::cache::store(path, text.as_bytes());
    }

    fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (IF_NONE_MATCH, &self.etag),
            (IF_MODIFIED_SINCE, &self.modified),
        ] {
            if let Some(value) = value.as_ref().and_then(|v| HeaderValue::from_str(v).ok()) {
                headers.insert(name, value);
            }
        }
    }
}

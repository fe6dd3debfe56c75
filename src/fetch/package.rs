//! Package files from the network: each once, the largest first, verified while they arrive.
//!
//! Every file is read by a thread of its own while its bytes come in: identity, data hash and the
//! checksum of every file in it. Only a file that is right to its last byte gets its name. What is
//! wrong or breaks off is asked of the next mirror; a transfer that broke goes on where it was.

use super::cache;
use super::http::{Ask, HttpError, Remedy, Session, Turns, origin};
use crate::config::repositories::without_credentials;
use crate::format::apk_v2::{EntryKind, PackageReader};
use crate::format::{FormatError, Limits};
use crate::package::Identity;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use reqwest::header::LAST_MODIFIED;
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Transfers at the same time. A mirror answers a request after one round trip; with a dozen under
/// way a hundred small packages take about ten round trips, and the twelve connections are what two
/// browsers open. More did not help on a line of 100 Mbit/s.
const CONCURRENT: usize = 12;

/// Chunks that wait between the network and the thread that reads them: with about 16 KiB each,
/// a dozen transfers hold at most 3 MiB.
const CHUNKS: usize = 16;

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct FileRequest {
    /// Its addresses, the preferred one first.
    pub urls: Vec<String>,
    /// Where to put it; it is replaced if it exists.
    pub target: PathBuf,
    /// Size in bytes that the index states, 0 if it is not known; no more is read.
    pub size: u64,
    /// The package that it must be; `None` for a file that the caller looks at himself.
    pub identity: Option<Identity>,
}

/// Something a mirror did not do, and who did it instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The mirror, without credentials.
    pub mirror: String,
    /// What it said.
    pub cause: String,
    /// The one that gave the file; `None` if none did.
    pub instead: Option<String>,
}

/// What became of a number of requests.
#[derive(Debug)]
pub struct Fetched {
    /// In the order of the requests.
    pub results: Vec<Result<(), HttpError>>,
    /// Mirrors that failed, and for how many files.
    pub troubles: BTreeMap<Trouble, usize>,
}

/// Told of bytes as they arrive.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Fetches files, the largest first, several at a time.
pub fn fetch_files(session: &Session, requests: &[FileRequest], progress: Progress<'_>) -> Fetched {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(requests[*at].size));
    let mut fetched = Fetched {
        results: vec![Ok(()); requests.len()],
        troubles: BTreeMap::new(),
    };
    let progress = std::cell::RefCell::new(progress);
    let work = order.into_iter().map(async |at| {
        let mut transfer = Transfer::new(session, &requests[at], &progress);
        let result = transfer.run().await;
        (at, result, transfer.troubles())
    });
    session.runtime.block_on(async {
        let mut work = stream::iter(work).buffer_unordered(CONCURRENT);
        while let Some((at, result, troubles)) = work.next().await {
            fetched.results[at] = result;
            for trouble in troubles {
                *fetched.troubles.entry(trouble).or_default() += 1;
            }
        }
    });
    fetched
}

/// One file on its way.
struct Transfer<'a, 'p> {
    session: &'a Session,
    request: &'a FileRequest,
    progress: &'a std::cell::RefCell<Progress<'p>>,
    turns: Turns,
    reader: Option<Reading>,
    /// The address that the last byte came from.
    given_by: Option<usize>,
    modified: Option<SystemTime>,
    done: bool,
}

/// The thread that reads what arrives.
struct Reading {
    sender: mpsc::Sender<Bytes>,
    thread: tokio::task::JoinHandle<Result<Temporary, ReadError>>,
    received: u64,
    /// Bytes came from more than one address.
    mixed: bool,
}

/// A file that waits for its name; it is removed unless it gets it.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already; then there is nothing to do.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("{}", crate::root::cause(.0))]
    Local(io::Error),
    #[error("v2 package integrity error: {path} is not what its checksum says")]
    Checksum { path: String },
}

impl<'a, 'p> Transfer<'a, 'p> {
    fn new(
        session: &'a Session,
        request: &'a FileRequest,
        progress: &'a std::cell::RefCell<Progress<'p>>,
    ) -> Self {
        Self {
            session,
            request,
            progress,
            turns: Turns::new(session, &request.urls),
            reader: None,
            given_by: None,
            modified: None,
            done: false,
        }
    }

    async fn run(&mut self) -> Result<(), HttpError> {
        while let Some(turn) = self.turns.next().await {
            let result = self.attempt(turn.number, turn.fresh).await;
            let url = &self.request.urls[turn.number];
            self.session.judge(url, result.as_ref().err());
            match result {
                Ok(()) => {
                    self.done = true;
                    return Ok(());
                }
                Err(error) => {
                    if !self.turns.failed(&turn, error) {
                        break;
                    }
                }
            }
        }
        // The thread ends when nothing can come any more, and takes its file along.
        self.reader = None;
        Err(self.turns.verdict())
    }

    /// Asks one server once, for what is still missing.
    async fn attempt(&mut self, number: usize, fresh: bool) -> Result<(), HttpError> {
        let request = self.request;
        if self.reader.is_none() {
            self.reader = Some(Reading::begin(request, self.session.limits())?);
        }
        let from = self.reader.as_ref().map_or(0, |reader| reader.received);
        let ask = Ask {
            from,
            fresh,
            mirrors: request.urls.len() > 1,
            ..Ask::default()
        };
        let mut answer = self.session.open(&request.urls[number], &ask).await?;
        if let Some(size) = answer.whole_size()
            && request.size > 0
            && size != request.size
        {
            return Err(HttpError::new(
                format!(
                    "file integrity error: the server has {size} bytes, the index says {}",
                    request.size
                ),
                Remedy::Afresh,
            ));
        }
        let modified = answer.headers().get(LAST_MODIFIED);
        let modified =
            modified.and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
        self.modified = modified.or(self.modified);
        let reader = self.reader.as_mut().expect("it was begun above");
        reader.mixed |= reader.received > 0 && self.given_by.is_some_and(|by| by != number);
        self.given_by = Some(number);
        loop {
            let Some(chunk) = answer.chunk().await? else {
                break;
            };
            let count = chunk.len() as u64;
            reader.received += count;
            if request.size > 0 && reader.received > request.size {
                self.reader = None;
                return Err(HttpError::new(
                    "file integrity error: the server sent more than the index says",
                    Remedy::Afresh,
                ));
            }
            (self.progress.borrow_mut())(count);
            if reader.sender.send(chunk).await.is_err() {
                // The reading thread has seen enough.
                return self.finish().await;
            }
        }
        if request.size > 0 && reader.received < request.size {
            return Err(HttpError::new("unexpected end of file", Remedy::Again));
        }
        self.finish().await
    }

    /// Waits for the verdict on the whole file and gives it its name.
    async fn finish(&mut self) -> Result<(), HttpError> {
        let Some(reader) = self.reader.take() else {
            return Ok(());
        };
        drop(reader.sender);
        let local = |error: &io::Error| HttpError::local(error);
        let mut temporary = match reader.thread.await {
            Err(error) => return Err(local(&io::Error::other(error.to_string()))),
            Ok(Err(ReadError::Local(error))) => return Err(local(&error)),
            // Which of several mirrors was wrong cannot be told: all over again.
            Ok(Err(error)) if reader.mixed => {
                return Err(HttpError::new(error.to_string(), Remedy::Again));
            }
            Ok(Err(error)) => return Err(HttpError::new(error.to_string(), Remedy::Afresh)),
            Ok(Ok(temporary)) => temporary,
        };
        if let Some(modified) = self.modified {
            // The time is for people; a file without it is as good.
            let _ = File::options()
                .append(true)
                .open(&temporary.path)
                .and_then(|file| file.set_modified(modified));
        }
        rustix::fs::rename(&temporary.path, &self.request.target)
            .map_err(|errno| local(&errno.into()))?;
        temporary.kept = true;
        Ok(())
    }

    /// Returns which mirrors failed although, or because, another one had to help.
    fn troubles(&self) -> Vec<Trouble> {
        let urls = &self.request.urls;
        let instead = self
            .given_by
            .filter(|_| self.done)
            .map(|by| mirror(&urls[by]));
        let mut troubles: Vec<Trouble> = Vec::new();
        for (number, error) in &self.turns.failures {
            let trouble = Trouble {
                mirror: mirror(&urls[*number]),
                cause: error.to_string(),
                instead: instead.clone(),
            };
            // Who failed and then did it needs no help.
            let helped = trouble.instead.as_ref() == Some(&trouble.mirror);
            if !helped && !troubles.iter().any(|known| known.mirror == trouble.mirror) {
                troubles.push(trouble);
            }
        }
        if urls.len() == 1 {
            Vec::new()
        } else {
            troubles
        }
    }
}

/// Returns how a mirror is called in messages.
fn mirror(url: &str) -> String {
    match crate::config::mirrors::Place::of(&without_credentials(url)) {
        Some(place) => place.mirror,
        None => origin(url),
    }
}

impl Reading {
    fn begin(request: &FileRequest, limits: Limits) -> Result<Self, HttpError> {
        let (file, path) =
            cache::begin(&request.target).map_err(|error| HttpError::local(&error))?;
        let temporary = Temporary { path, kept: false };
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let identity = request.identity;
        let thread = tokio::task::spawn_blocking(move || {
            let mut arriving = Arriving {
                receiver,
                chunk: Bytes::new(),
                copy: file,
                failed: None,
            };
            let result = match identity {
                Some(identity) => check(&mut arriving, identity, &limits),
                None => io::copy(&mut arriving, &mut io::sink())
                    .map(drop)
                    .map_err(|error| ReadError::Format(error.into())),
            };
            match arriving.failed {
                Some(error) => Err(ReadError::Local(error)),
                None => result.map(|()| temporary),
            }
        });
        Ok(Self {
            sender,
            thread,
            received: 0,
            mixed: false,
        })
    }
}

/// The bytes as they arrive; each is written to the file before anybody reads it.
struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    copy: File,
    /// Why the file could not be written.
    failed: Option<io::Error>,
}

impl BufRead for Arriving {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty()
            && let Some(chunk) = self.receiver.blocking_recv()
        {
            if let Err(error) = self.copy.write_all(&chunk) {
                let shown = io::Error::from(error.kind());
                self.failed = Some(error);
                return Err(shown);
            }
            self.chunk = chunk;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        let _ = self.chunk.split_to(count.min(self.chunk.len()));
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Reads a package to its end and checks all that it says of itself.
fn check<R: BufRead>(source: R, identity: Identity, limits: &Limits) -> Result<(), ReadError> {
    let (control, mut data) = PackageReader::open(source, limits)?;
    if control.identity != identity {
        return Err(FormatError::Integrity.into());
    }
    let mut buffer = vec![0; 64 << 10];
    while let Some(entry) = data.next_entry()? {
        let Some(wanted) = entry
            .header
            .sha1
            .filter(|_| entry.header.kind == EntryKind::File)
        else {
            continue;
        };
        let mut hash = Sha1::new();
        loop {
            let count = data.read(&mut buffer).map_err(FormatError::from)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        if hash.finalize().as_slice() != wanted {
            return Err(ReadError::Checksum { path: entry.path });
        }
    }
    data.finish()?;
    Ok(())
}

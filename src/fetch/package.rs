//! Package files from the network: each once, the largest first, verified while they arrive.
//!
//! Every file is read by a thread of its own while its bytes come in: identity, data hash and the
//! checksum of every file in it. Only a file that is right to its last byte gets its name. What is
//! wrong or breaks off is asked of the next mirror; a transfer that broke goes on where it was.

use super::cache::{self, Key, Lock, Store};
use super::http::{Ask, HttpError, Remedy, Session, Turns, origin};
use crate::config::repositories::without_credentials;
use crate::format::apk::{EntryKind, PackageReader};
use crate::format::unpacked::{UnpackError, unpack};
use crate::format::{FormatError, Limits};
use crate::package::Identity;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use reqwest::header::LAST_MODIFIED;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Transfers at the same time. A mirror answers a request after one round trip; with a dozen under
/// way a hundred small packages take about ten round trips, and twelve connections are what two
/// browsers open.
const CONCURRENT: usize = 12;

/// The first wait for another process that makes the same file; it doubles.
const SHORTEST_WAIT: Duration = Duration::from_millis(2);
/// The wait it doubles to: small packages take about as long.
const MIDDLE_WAIT: Duration = Duration::from_millis(50);
/// The whole wait. The largest packages take a minute on a slow line.
const LONGEST_WAIT: Duration = Duration::from_secs(180);

/// Bytes read at once from a package file.
const READ_BUFFER: usize = 128 << 10;

/// Chunks that wait between the network and the thread that reads them: with about 16 KiB each,
/// a dozen transfers hold at most 3 MiB.
const CHUNKS: usize = 16;

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct FileRequest {
    /// Its addresses, the preferred one first.
    pub urls: Vec<String>,
    /// Where to put it; it is replaced if it exists. `None` if only its contents are wanted.
    pub target: Option<PathBuf>,
    /// Size in bytes that the index states, 0 if it is not known; no more is read.
    pub size: u64,
    /// The package that it must be; `None` for a file that the caller looks at himself.
    pub package: Option<Key>,
    /// Put the package into the store unpacked, too.
    pub unpack: bool,
    /// The same package file on this disk, which is used if it is good and removed if it is not.
    pub on_disk: Option<PathBuf>,
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
    /// Files on this disk that were damaged.
    pub damaged: Vec<PathBuf>,
}

/// Told of bytes as they arrive.
pub type Progress<'a> = &'a mut dyn FnMut(u64);

/// Fetches files, the largest first, several at a time.
pub fn fetch_files(
    session: &Session,
    store: Option<&Store>,
    requests: &[FileRequest],
    progress: Progress<'_>,
) -> Fetched {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(requests[*at].size));
    let mut fetched = Fetched {
        results: vec![Ok(()); requests.len()],
        troubles: BTreeMap::new(),
        damaged: Vec::new(),
    };
    let progress = std::cell::RefCell::new(progress);
    let work = order.into_iter().map(async |at| {
        let mut transfer = Transfer::new(session, store, &requests[at], &progress);
        let result = transfer.run().await;
        (at, result, transfer.troubles(), transfer.damaged)
    });
    session.runtime.block_on(async {
        let mut work = stream::iter(work).buffer_unordered(CONCURRENT);
        while let Some((at, result, troubles, damaged)) = work.next().await {
            fetched.results[at] = result;
            fetched.damaged.extend(damaged);
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
    store: Option<&'a Store>,
    request: &'a FileRequest,
    progress: &'a std::cell::RefCell<Progress<'p>>,
    turns: Turns,
    reader: Option<Reading>,
    /// The address that the last byte came from.
    given_by: Option<usize>,
    /// What came from several addresses together was wrong: each gives the whole from now on.
    apart: bool,
    modified: Option<SystemTime>,
    done: bool,
    damaged: Option<PathBuf>,
}

/// The thread that reads what arrives.
struct Reading {
    sender: mpsc::Sender<Bytes>,
    thread: tokio::task::JoinHandle<Result<Waiting, ReadError>>,
    received: u64,
    /// Bytes came from more than one address.
    mixed: bool,
}

/// Files that wait for their names; they are removed unless they get them.
#[derive(Default)]
struct Waiting {
    package: Option<(PathBuf, PathBuf)>,
    unpacked: Option<(PathBuf, PathBuf)>,
}

impl Waiting {
    /// Opens the files that a request asks for.
    fn open(
        request: &FileRequest,
        store: Option<&Store>,
        with_package: bool,
    ) -> io::Result<(Self, Option<File>, Option<File>)> {
        let mut waiting = Self::default();
        let (mut package, mut unpacked) = (None, None);
        if let Some(target) = request.target.as_ref().filter(|_| with_package) {
            let (file, path) = cache::begin(target)?;
            waiting.package = Some((path, target.clone()));
            package = Some(file);
        }
        if let (Some(key), Some(store), true) = (&request.package, store, request.unpack) {
            let target = store.unpacked_path(key);
            let (file, path) = cache::begin(&target)?;
            waiting.unpacked = Some((path, target));
            unpacked = Some(file);
        }
        Ok((waiting, package, unpacked))
    }

    /// Gives the files their names.
    fn finish(mut self, modified: Option<SystemTime>, store: Option<&Store>) -> io::Result<()> {
        if let Some((path, target)) = &self.package {
            if let Some(modified) = modified {
                // The time is for people; a file without it is as good.
                let _ = File::options()
                    .append(true)
                    .open(path)
                    .and_then(|file| file.set_modified(modified));
            }
            rustix::fs::rename(path, target)?;
            self.package = None;
        }
        if let (Some((path, target)), Some(store)) = (&self.unpacked, store) {
            rustix::fs::rename(path, target)?;
            store.seal(target)?;
            self.unpacked = None;
        }
        Ok(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for (path, _) in [&self.package, &self.unpacked].into_iter().flatten() {
            // It may be gone already; then there is nothing to do.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
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
        store: Option<&'a Store>,
        request: &'a FileRequest,
        progress: &'a std::cell::RefCell<Progress<'p>>,
    ) -> Self {
        Self {
            session,
            store,
            request,
            progress,
            turns: Turns::new(session, &request.urls),
            reader: None,
            given_by: None,
            apart: false,
            modified: None,
            done: false,
            damaged: None,
        }
    }

    async fn run(&mut self) -> Result<(), HttpError> {
        let _lock = self.lock().await;
        if self.is_there() {
            self.done = true;
            return Ok(());
        }
        if let Some(result) = self.take_from_disk().await {
            return result;
        }
        while let Some(turn) = self.turns.next().await {
            let (before, apart) = (self.received(), self.apart);
            let mut result = self.attempt(turn.number, turn.fresh).await;
            if self.apart && !apart {
                // Whoever was asked last may be right: it gives all of it, at once.
                result = self.attempt(turn.number, turn.fresh).await;
            }
            if self.received() >= before.saturating_add(least_progress(self.request.size)) {
                self.turns.progressed();
            }
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
        self.abandon().await;
        Err(self.turns.verdict())
    }

    /// Returns how many bytes of the file are here.
    fn received(&self) -> u64 {
        self.reader.as_ref().map_or(0, |reader| reader.received)
    }

    /// Lets go of what is here. The thread ends when nothing can come any more, and takes its files
    /// along; they must be gone before others get their names.
    async fn abandon(&mut self) {
        if let Some(reader) = self.reader.take() {
            drop(reader.sender);
            // How it ended matters to nobody.
            let _ = reader.thread.await;
        }
    }

    /// Takes the right to make the files of this package, so that each is made once, whichever
    /// process comes first. Whoever holds it too long is not waited for: two that make the same
    /// file do no harm.
    async fn lock(&self) -> Option<Lock> {
        let (store, key) = (self.store?, self.request.package.as_ref()?);
        if store.is_temporary() {
            return None;
        }
        let began = std::time::Instant::now();
        let mut wait = SHORTEST_WAIT;
        while began.elapsed() < LONGEST_WAIT {
            match store.try_lock(key) {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => tokio::time::sleep(wait).await,
                Err(_) => return None,
            }
            wait = (wait * 2).min(MIDDLE_WAIT);
            // What is wanted may be there before the lock is free.
            if self.is_there() {
                return None;
            }
        }
        None
    }

    /// Returns whether another process made the files in the meantime.
    fn is_there(&self) -> bool {
        let request = self.request;
        let (Some(store), Some(key)) = (self.store, &request.package) else {
            return false;
        };
        let target = request.target.as_ref();
        let has_target = target.is_some_and(|target| has_size(target, request.size));
        if !request.unpack {
            return has_target;
        }
        (has_target || target.is_none())
            && store.find_unpacked(key, &self.session.limits()).is_some()
    }

    /// Uses the package file on this disk, if there is one; one that is damaged is removed.
    async fn take_from_disk(&mut self) -> Option<Result<(), HttpError>> {
        let request = self.request;
        let came = || {
            // Another process may have put it there while this one waited.
            let target = request.target.as_ref()?;
            (request.unpack && has_size(target, request.size)).then(|| target.clone())
        };
        let path = request.on_disk.clone().or_else(came)?;
        let local = |error: &io::Error| Some(Err(HttpError::local(error)));
        let elsewhere = request.target.as_ref() != Some(&path);
        let (waiting, copy, file) = match Waiting::open(request, self.store, elsewhere) {
            Ok(opened) => opened,
            Err(error) => return local(&error),
        };
        let (source, limits) = (path.clone(), self.session.limits());
        let identity = request.package.as_ref()?.identity();
        let work = tokio::task::spawn_blocking(move || {
            let mut source = File::open(source).map_err(FormatError::from)?;
            let reader = io::BufReader::with_capacity(READ_BUFFER, &source);
            match file {
                Some(file) => unpack(reader, identity, &limits, file)?,
                None if check(reader, &limits)? == identity => {}
                None => return Err(FormatError::Integrity.into()),
            }
            // The file that was just checked, whatever its name means by now.
            if let Some(mut copy) = copy {
                let copied =
                    io::Seek::rewind(&mut source).and_then(|()| io::copy(&mut source, &mut copy));
                copied.map_err(ReadError::Local)?;
            }
            source
                .metadata()
                .and_then(|meta| meta.modified())
                .map_err(ReadError::Local)
        });
        let result = work
            .await
            .unwrap_or_else(|error| Err(ReadError::Local(io::Error::other(error.to_string()))));
        match result {
            Ok(modified) => match waiting.finish(Some(modified), self.store) {
                Ok(()) => {
                    (self.progress.borrow_mut())(request.size);
                    self.done = true;
                    Some(Ok(()))
                }
                Err(error) => local(&error),
            },
            Err(ReadError::Local(error)) => local(&error),
            Err(error) => {
                // If it stays it is found damaged again.
                let _ = std::fs::remove_file(&path);
                self.damaged = Some(path);
                let text = format!("the cached package is damaged: {error}");
                let failed = HttpError::new(text, Remedy::Elsewhere);
                request.urls.is_empty().then_some(Err(failed))
            }
        }
    }

    /// Asks one server once, for what is still missing.
    async fn attempt(&mut self, number: usize, fresh: bool) -> Result<(), HttpError> {
        let request = self.request;
        if let Some(reader) = &self.reader {
            let other = self.given_by.is_some_and(|by| by != number);
            // A thread that ended before its file did has seen something wrong.
            if reader.thread.is_finished() || self.apart && other {
                self.abandon().await;
            }
        }
        if self.reader.is_none() {
            self.reader = Some(Reading::begin(request, self.store, self.session.limits())?);
        }
        let from = self.reader.as_ref().map_or(0, |reader| reader.received);
        let ask = Ask {
            from,
            fresh,
            mirrors: request.urls.len() > 1,
            ..Ask::default()
        };
        let mut answer = self.session.open(&request.urls[number], &ask).await?;
        if answer.is_unchanged() {
            return Err(HttpError::unasked());
        }
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
                self.abandon().await;
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
        let waiting = match reader.thread.await {
            Err(error) => return Err(local(&io::Error::other(error.to_string()))),
            Ok(Err(ReadError::Local(error))) => return Err(local(&error)),
            // Which of several mirrors was wrong cannot be told: all over again.
            Ok(Err(error)) if reader.mixed => {
                self.apart = true;
                return Err(HttpError::new(error.to_string(), Remedy::Again));
            }
            Ok(Err(error)) => return Err(HttpError::new(error.to_string(), Remedy::Afresh)),
            Ok(Ok(waiting)) => waiting,
        };
        let named = waiting.finish(self.modified, self.store);
        named.map_err(|error| match error.kind() {
            // Its directory was deleted under it, which is allowed.
            io::ErrorKind::NotFound => {
                HttpError::new("the cache was deleted meanwhile", Remedy::Again)
            }
            _ => local(&error),
        })
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

/// Returns how many bytes an attempt must bring for it to be worth another one: a transfer that breaks
/// off again and again ends, but no server keeps anybody for long.
fn least_progress(size: u64) -> u64 {
    const MOST: u64 = 1 << 20;
    match size {
        0 => u64::MAX,
        size => size.div_ceil(16).min(MOST),
    }
}

fn has_size(path: &std::path::Path, size: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.len() == size)
}

/// Returns how a mirror is called in messages.
fn mirror(url: &str) -> String {
    match crate::config::mirrors::Place::of(&without_credentials(url)) {
        Some(place) => place.mirror,
        None => origin(url),
    }
}

impl Reading {
    fn begin(
        request: &FileRequest,
        store: Option<&Store>,
        limits: Limits,
    ) -> Result<Self, HttpError> {
        let opened = Waiting::open(request, store, true);
        let (waiting, copy, file) = opened.map_err(|error| HttpError::local(&error))?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let identity = request.package.as_ref().map(Key::identity);
        let thread = tokio::task::spawn_blocking(move || {
            let mut failed = None;
            let arriving = Arriving {
                receiver,
                chunk: Bytes::new(),
                copy,
                failed: &mut failed,
            };
            let result = read(arriving, identity, file, &limits);
            match failed {
                Some(error) => Err(ReadError::Local(error)),
                None => result.map(|()| waiting),
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

/// Reads what arrives to its end, in the way that is asked for.
fn read(
    mut arriving: Arriving<'_>,
    identity: Option<Identity>,
    unpacked: Option<File>,
    limits: &Limits,
) -> Result<(), ReadError> {
    match (identity, unpacked) {
        (Some(identity), Some(file)) => Ok(unpack(arriving, identity, limits, file)?),
        (Some(identity), None) => match check(arriving, limits)? == identity {
            true => Ok(()),
            false => Err(FormatError::Integrity.into()),
        },
        (None, _) => match io::copy(&mut arriving, &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(error) => Err(FormatError::from(error).into()),
        },
    }
}

/// The bytes as they arrive; each is written to the file before anybody reads it.
struct Arriving<'f> {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    copy: Option<File>,
    /// Why the file could not be written.
    failed: &'f mut Option<io::Error>,
}

impl BufRead for Arriving<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.chunk.is_empty()
            && let Some(chunk) = self.receiver.blocking_recv()
        {
            if let Some(copy) = &mut self.copy
                && let Err(error) = copy.write_all(&chunk)
            {
                let shown = io::Error::from(error.kind());
                *self.failed = Some(error);
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

impl Read for Arriving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Reads a package to its end and checks all that it says of itself; returns its identity.
///
/// # Errors
/// [`ReadError`].
pub(super) fn check<R: BufRead>(source: R, limits: &Limits) -> Result<Identity, ReadError> {
    let (control, mut data) = PackageReader::open(source, limits)?;
    let mut buffer = vec![0; 64 << 10];
    while let Some(entry) = data.next_entry()? {
        let file = entry.header.kind == EntryKind::File;
        let wanted = entry.header.checksum;
        if !file || !wanted.is_some() {
            continue;
        }
        let mut hash = wanted.hash();
        loop {
            let count = data.read(&mut buffer).map_err(FormatError::from)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        if hash.finish() != wanted {
            return Err(ReadError::Checksum { path: entry.path });
        }
    }
    data.finish()?;
    Ok(control.identity)
}

impl From<UnpackError> for ReadError {
    fn from(error: UnpackError) -> Self {
        match error {
            UnpackError::Format(error) => Self::Format(error),
            UnpackError::Checksum { path } => Self::Checksum { path },
            UnpackError::Write(error) => Self::Local(error),
        }
    }
}

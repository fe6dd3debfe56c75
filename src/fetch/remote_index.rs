//! Indexes from the network: asked for only if they changed, from the first mirror that gives one
//! that may be used.
//!
//! The caller judges each index before it counts; one that is refused (damaged, not trusted, older
//! than what was seen) is a failure of that mirror, and the next one is asked.

use super::http::{Answer, Ask, HttpError, Remedy, Session, Turns};
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::header::{
    ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// An index to fetch.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// Its addresses, the preferred one first.
    pub urls: Vec<String>,
    /// The copy in the cache, to ask only for what is newer.
    pub copy: Option<PathBuf>,
    /// A second copy that all roots of a user share.
    pub shared: Option<PathBuf>,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct IndexAnswer {
    /// The address that answered well, by number; an error if none did.
    pub result: Result<Given, HttpError>,
    /// What the others said, in order.
    pub failures: Vec<(usize, HttpError)>,
    /// A server said that the index has moved here for good.
    pub moved: Option<String>,
}

/// A good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Which address gave it.
    pub number: usize,
    /// The copy is current, its time was set to now; else the caller took a new index.
    pub unchanged: bool,
}

/// Judges and keeps an index: the number of the request, and the bytes.
pub type Take<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Result<(), String>;

/// Fetches indexes, all at the same time: a root has a handful. The answers are in the order of
/// the requests.
pub fn fetch_indexes(
    session: &Session,
    requests: &[IndexRequest],
    force: bool,
    limit: u64,
    take: Take<'_>,
) -> Vec<IndexAnswer> {
    let take = RefCell::new(take);
    let mut work: FuturesUnordered<_> = requests
        .iter()
        .enumerate()
        .map(async |(number, request)| {
            let take = |bytes: &[u8]| (take.borrow_mut())(number, bytes);
            (number, fetch(session, request, force, limit, &take).await)
        })
        .collect();
    let mut answers: Vec<Option<IndexAnswer>> = vec![None; requests.len()];
    session.runtime.block_on(async {
        while let Some((number, answer)) = work.next().await {
            answers[number] = Some(answer);
        }
    });
    answers.into_iter().flatten().collect()
}

async fn fetch(
    session: &Session,
    request: &IndexRequest,
    force: bool,
    limit: u64,
    take: &dyn Fn(&[u8]) -> Result<(), String>,
) -> IndexAnswer {
    let mut turns = Turns::new(session, &request.urls);
    let mut moved = None;
    let result = loop {
        let Some(turn) = turns.next().await else {
            break Err(turns.verdict());
        };
        let url = &request.urls[turn.number];
        let ask = Ask {
            headers: match force {
                true => HeaderMap::new(),
                false => request.condition(url),
            },
            fresh: force || turn.fresh,
            mirrors: request.urls.len() > 1,
            ..Ask::default()
        };
        let given = one(session, url, &ask, limit, request, take, &mut moved).await;
        session.judge(url, given.as_ref().err());
        match given {
            Ok(new) => {
                break Ok(Given {
                    number: turn.number,
                    unchanged: !new,
                });
            }
            Err(error) => {
                if !turns.failed(&turn, error) {
                    break Err(turns.verdict());
                }
            }
        }
    };
    IndexAnswer {
        result,
        failures: turns.failures,
        moved,
    }
}

/// Asks one server once; `true` if it gave an index that was taken.
async fn one(
    session: &Session,
    url: &str,
    ask: &Ask,
    limit: u64,
    request: &IndexRequest,
    take: &dyn Fn(&[u8]) -> Result<(), String>,
    moved: &mut Option<String>,
) -> Result<bool, HttpError> {
    let mut answer = session.open(url, ask).await?;
    *moved = answer.moved.take().or(moved.take());
    if answer.is_unchanged() {
        if ask.headers.is_empty() {
            return Err(HttpError::unasked());
        }
        request.touch();
        return Ok(false);
    }
    let validators = Validators::of(url, answer.headers());
    let bytes = body(&mut answer, limit).await?;
    take(&bytes).map_err(|why| HttpError::new(why, Remedy::Afresh))?;
    if let Some(copy) = &request.copy {
        validators.write(&Validators::path(copy));
    }
    if let Some(shared) = &request.shared {
        // Without it another root fetches the index itself.
        let _ = super::cache::store(shared, &bytes);
        validators.write(&Validators::path(shared));
    }
    Ok(true)
}

async fn body(answer: &mut Answer, limit: u64) -> Result<Vec<u8>, HttpError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(HttpError::too_large("index file", limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

impl IndexRequest {
    /// Returns the headers that ask this server only for what is newer than the copy.
    fn condition(&self, url: &str) -> HeaderMap {
        let copy = self.copy.as_deref().filter(|copy| copy.exists());
        let known = copy.and_then(|copy| Validators::read(&Validators::path(copy)));
        match known.filter(|known| known.server == fingerprint(url)) {
            Some(known) => known.headers(),
            None => HeaderMap::new(),
        }
    }

    /// The age of a copy counts from the last check.
    fn touch(&self) {
        for copy in [&self.copy, &self.shared].into_iter().flatten() {
            // If it cannot be set the next command asks again.
            let _ = std::fs::File::options()
                .append(true)
                .open(copy)
                .and_then(|file| file.set_modified(SystemTime::now()));
        }
    }
}

/// Drops a copy that is damaged, so that nobody is asked only for what is newer.
pub fn drop_copy(copy: &Path) {
    // What stays is found damaged again.
    let _ = std::fs::remove_file(copy);
    let _ = std::fs::remove_file(Validators::path(copy));
}

/// Takes the copy that another root of the user left as this root's own, if it has none. Its age
/// comes along.
pub fn seed(copy: &Path, shared: &Path) {
    let found = std::fs::read(shared);
    let modified = std::fs::metadata(shared).and_then(|meta| meta.modified());
    let (Ok(bytes), Ok(modified), false) = (found, modified, copy.exists()) else {
        return;
    };
    // What does not work out here is fetched.
    let placed = super::cache::store(copy, &bytes).and_then(|()| {
        let file = std::fs::File::options().append(true).open(copy)?;
        file.set_modified(modified)
    });
    if let (Ok(()), Some(known)) = (placed, Validators::read(&Validators::path(shared))) {
        known.write(&Validators::path(copy));
    }
}

/// What a server gave to recognise an index by, kept beside the copy.
#[derive(Clone, Debug, Default)]
struct Validators {
    /// A digest of the address: it may hold a password.
    server: String,
    etag: Option<String>,
    modified: Option<String>,
}

fn fingerprint(url: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(url)[..16])
}

impl Validators {
    fn path(copy: &Path) -> PathBuf {
        // Hidden: apk's `cache clean` removes files that it does not know.
        let mut name = std::ffi::OsString::from(".");
        name.push(copy.file_name().unwrap_or_default());
        name.push(".validators");
        copy.with_file_name(name)
    }

    fn of(url: &str, headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
        };
        Self {
            server: fingerprint(url),
            etag: text(ETAG).map(str::to_owned),
            modified: text(LAST_MODIFIED).map(str::to_owned),
        }
    }

    fn read(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        let mut line = || {
            lines
                .next()
                .filter(|line| !line.is_empty())
                .map(str::to_owned)
        };
        let (etag, modified) = (line(), line());
        Some(Self {
            server: line()?,
            etag,
            modified,
        })
    }

    fn write(&self, path: &Path) {
        let text = format!(
            "{}\n{}\n{}\n",
            self.etag.as_deref().unwrap_or_default(),
            self.modified.as_deref().unwrap_or_default(),
            self.server
        );
        // Without it the next request is not conditional, that is all.
        let _ = super::cache::store(path, text.as_bytes());
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (IF_NONE_MATCH, &self.etag),
            (IF_MODIFIED_SINCE, &self.modified),
        ] {
            if let Some(value) = value.as_ref().and_then(|v| HeaderValue::from_str(v).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

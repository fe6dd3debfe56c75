//! Sending one blob: whole at first, and from where it broke off afterwards.

use super::{
    Blob, BlobSource, Registry, RegistryError, TRIES, authorize, challenge, empty, may_pass,
    no_answer, path, pause,
};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes of one piece of an upload that is resumed; they are in memory while they are sent.
const CHUNK: u64 = 8 << 20;

/// A registry that wants larger pieces than this gets the blob whole instead.
const LARGEST_CHUNK: u64 = 64 << 20;

const BYTES: &str = "application/octet-stream";

/// An upload that was begun.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    /// Where it goes on, with everything that the registry keeps in the address.
    url: String,
    /// Pieces, but for the last, must have this many bytes (`OCI-Chunk-Min-Length`).
    least: u64,
}

impl Upload {
    /// Reads where an upload goes on: absolute or relative, with its query.
    pub(super) fn of(answer: &Response, asked: &str) -> Result<Self, RegistryError> {
        let wrong = || RegistryError::Wrong {
            path: path(asked),
            found: "no place for an upload".to_owned(),
            wanted: "one".to_owned(),
        };
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let base = Url::parse(asked).map_err(|_| wrong())?;
        let place = header(LOCATION.as_str()).ok_or_else(wrong)?;
        let url = base.join(place).map_err(|_| wrong())?;
        let least = header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        Ok(Self {
            url: url.to_string(),
            least: least.unwrap_or(0),
        })
    }

    fn finish(&self, digest: &str) -> String {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        format!("{}{separator}digest={digest}", self.url)
    }
}

/// What came of sending something.
enum Sent {
    /// The registry has the blob.
    Done,
    /// It may be better next time.
    Again(RegistryError),
    /// The way broke: part of it may have arrived.
    Broken(RegistryError),
}

impl Registry {
    /// Sends a blob; returns how many bytes were sent for it. `start` is where uploads begin,
    /// `begun` one that exists.
    pub(super) async fn upload(
        &self,
        blob: &Blob<'_>,
        start: &str,
        mut begun: Option<Upload>,
    ) -> Result<u64, RegistryError> {
        let mut last = None;
        let mut sent = 0;
        let mut broken = false;
        for round in 0..TRIES {
            pause(round, None).await;
            let there = match begun.as_ref().filter(|_| broken) {
                Some(upload) => self.arrived(upload, blob).await,
                None => None,
            };
            let came = match (there, begun.take()) {
                (Some((upload, at)), _) => {
                    begun = Some(upload.clone());
                    self.resume(blob, upload, at, &mut sent).await?
                }
                (None, upload) => {
                    let upload = match upload.filter(|_| !broken) {
                        Some(upload) => upload,
                        None => self.begin(start).await?,
                    };
                    begun = Some(upload.clone());
                    self.whole(blob, &upload, &mut sent).await?
                }
            };
            last = Some(match came {
                Sent::Done => return Ok(sent),
                Sent::Again(error) => {
                    // What was begun is of no use any more.
                    begun = None;
                    broken = false;
                    error
                }
                Sent::Broken(error) => {
                    broken = true;
                    error
                }
            });
        }
        Err(last.expect("there was a try"))
    }

    async fn begin(&self, start: &str) -> Result<Upload, RegistryError> {
        let answer = self.send(Method::POST, start, empty).await?;
        match answer.status() {
            StatusCode::ACCEPTED => Upload::of(&answer, start),
            _ => Err(self.refused(Method::POST, start, answer).await),
        }
    }

    /// Sends everything at once.
    async fn whole(
        &self,
        blob: &Blob<'_>,
        upload: &Upload,
        sent: &mut u64,
    ) -> Result<Sent, RegistryError> {
        let target = upload.finish(blob.digest);
        for first in [true, false] {
            let body: reqwest::Body = match blob.source {
                BlobSource::Bytes(bytes) => bytes.to_vec().into(),
                BlobSource::File(path) => {
                    let file = tokio::fs::File::open(path).await;
                    file.map_err(|error| unreadable(path, &error))?.into()
                }
            };
            let request = self.client.put(&target);
            let request = request
                .header(CONTENT_TYPE, BYTES)
                .header(CONTENT_LENGTH, blob.size)
                .body(body);
            let authorization = self.authorization().await;
            let answer = match authorize(request, authorization.as_deref()).send().await {
                Ok(answer) => answer,
                Err(error) => {
                    return Ok(Sent::Broken(no_answer(&Method::PUT, &target, &error)));
                }
            };
            match answer.status() {
                StatusCode::CREATED => {
                    *sent += blob.size;
                    return Ok(Sent::Done);
                }
                // The token is too old, or not good enough.
                StatusCode::UNAUTHORIZED if first => {
                    self.log_in(&challenge(&answer), authorization).await?;
                }
                status => {
                    let error = self.refused(Method::PUT, &target, answer).await;
                    return match may_pass(status) {
                        true => Ok(Sent::Again(error)),
                        false => Err(error),
                    };
                }
            }
        }
        Err(self.denied(401))
    }

    /// Asks how much of a broken upload has arrived; `None` if it must begin anew.
    async fn arrived(&self, upload: &Upload, blob: &Blob<'_>) -> Option<(Upload, u64)> {
        let answer = self.send(Method::GET, &upload.url, |request| request);
        let answer = answer.await.ok()?;
        if !answer.status().is_success() || upload.least.max(CHUNK) > LARGEST_CHUNK {
            return None;
        }
        let range = answer.headers().get(RANGE)?.to_str().ok()?;
        let (_, end) = range.trim_start_matches("bytes=").split_once('-')?;
        let end: u64 = end.trim().parse().ok()?;
        // `0-0` is what registries say of nothing as well as of one byte.
        let at = if end == 0 { 0 } else { end + 1 };
        let mut next = Upload::of(&answer, &upload.url).unwrap_or_else(|_| upload.clone());
        next.least = next.least.max(upload.least);
        (at > 0 && at <= blob.size).then_some((next, at))
    }

    /// Sends what is missing from `at` on in pieces, then closes the upload.
    async fn resume(
        &self,
        blob: &Blob<'_>,
        mut upload: Upload,
        mut at: u64,
        sent: &mut u64,
    ) -> Result<Sent, RegistryError> {
        while at < blob.size {
            let piece = read_piece(blob, at, upload.least.max(CHUNK)).await?;
            let length = piece.len() as u64;
            if length == 0 {
                let ended = std::io::ErrorKind::UnexpectedEof.into();
                return Err(match blob.source {
                    BlobSource::File(path) => unreadable(path, &ended),
                    BlobSource::Bytes(_) => unreadable(std::path::Path::new(blob.digest), &ended),
                });
            }
            let range = format!("{at}-{}", at + length - 1);
            let url = upload.url.clone();
            let fill = |request: reqwest::RequestBuilder| {
                request
                    .header(CONTENT_TYPE, BYTES)
                    .header(CONTENT_RANGE, &range)
                    .header(CONTENT_LENGTH, length)
                    .body(piece.clone())
            };
            // One try only: whether a piece arrived must be asked before it is sent again.
            let authorization = self.authorization().await;
            let request = fill(self.client.patch(&url));
            let answer = match authorize(request, authorization.as_deref()).send().await {
                Ok(answer) => answer,
                Err(error) => {
                    return Ok(Sent::Broken(no_answer(&Method::PATCH, &url, &error)));
                }
            };
            match answer.status() {
                StatusCode::UNAUTHORIZED => {
                    self.log_in(&challenge(&answer), authorization).await?;
                    return Ok(Sent::Broken(self.denied(401)));
                }
                status if status.is_success() => {
                    let least = upload.least;
                    upload = Upload::of(&answer, &url)?;
                    upload.least = upload.least.max(least);
                    at += length;
                    *sent += length;
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    let error = self.refused(Method::PATCH, &url, answer).await;
                    return Ok(Sent::Broken(error));
                }
                status => {
                    let error = self.refused(Method::PATCH, &url, answer).await;
                    return match may_pass(status) {
                        true => Ok(Sent::Broken(error)),
                        false => Ok(Sent::Again(error)),
                    };
                }
            }
        }
        let target = upload.finish(blob.digest);
        let answer = self.send(Method::PUT, &target, empty).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(Sent::Done),
            _ => Ok(Sent::Again(
                self.refused(Method::PUT, &target, answer).await,
            )),
        }
    }
}

async fn read_piece(blob: &Blob<'_>, at: u64, most: u64) -> Result<bytes::Bytes, RegistryError> {
    match blob.source {
        BlobSource::Bytes(bytes) => {
            let rest = bytes.get(at as usize..).unwrap_or_default();
            Ok(bytes::Bytes::copy_from_slice(
                &rest[..rest.len().min(most as usize)],
            ))
        }
        BlobSource::File(path) => {
            let failed = |error: std::io::Error| unreadable(path, &error);
            let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
            file.seek(SeekFrom::Start(at)).await.map_err(failed)?;
            let mut piece = Vec::new();
            let mut rest = file.take(most);
            rest.read_to_end(&mut piece).await.map_err(failed)?;
            Ok(piece.into())
        }
    }
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> RegistryError {
    RegistryError::Blob {
        path: path.to_owned(),
        cause: crate::root::cause(error),
    }
}

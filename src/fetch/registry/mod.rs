//! Pushing an image to a registry over the distribution API (image.md, chapter 11).
//!
//! Blobs first, then manifests, then the index, then tags: a name never points to something that is
//! not all there. A blob that the registry has is not sent, one that another repository of it has is
//! mounted. Nothing is written to the registry but what was given, byte for byte.

mod credentials;
mod pull;
mod reference;
mod upload;

pub use credentials::{CredentialError, CredentialFiles, Login, Stored};
pub use reference::{Reference, ReferenceError};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use upload::Upload;

/// How often something is tried that may pass.
const TRIES: u32 = 5;

/// The wait before the second try; it doubles.
const BACK_OFF: Duration = Duration::from_millis(300);

/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Without an answer for this long a request has failed; sending a blob has no limit but this
/// between two steps.
const PATIENCE: Duration = Duration::from_secs(60);

/// Blobs that are sent at the same time.
const AT_ONCE: usize = 4;

/// The largest answer that is read: manifests and errors are small.
const LARGEST_ANSWER: usize = 4 << 20;

/// Why an image could not be pushed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry refused something.
    #[error("{method} {path}: {status}{}", said(.code, .message))]
    Refused {
        /// The method.
        method: String,
        /// The address of the request.
        path: String,
        /// The status.
        status: u16,
        /// The registry's own code, such as `DENIED`.
        code: String,
        /// The registry's own words.
        message: String,
    },
    /// Credentials are missing or wrong.
    #[error("https://{registry} refused access ({status}); credentials: {source_name}")]
    Denied {
        /// Which registry.
        registry: String,
        /// The status.
        status: u16,
        /// Which credentials were used.
        source_name: String,
    },
    /// There was no answer.
    #[error("{method} {path}: {cause}")]
    NoAnswer {
        /// The method.
        method: String,
        /// The address of the request.
        path: String,
        /// What went wrong.
        cause: String,
    },
    /// The registry answered something that it must not.
    #[error("{path}: the registry says {found}, not {wanted}")]
    Wrong {
        /// The address of the request.
        path: String,
        /// What it said.
        found: String,
        /// What it should have said.
        wanted: String,
    },
    /// A blob cannot be read.
    #[error("cannot read {path}: {cause}")]
    Blob {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl RegistryError {
    /// Returns whether it is about who we are.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

fn said(code: &str, message: &str) -> String {
    match (code, message) {
        ("", "") => String::new(),
        ("", message) => format!(": {message}"),
        (code, "") => format!(": {code}"),
        (code, message) => format!(": {code}: {message}"),
    }
}

/// Where the bytes of a blob are.
#[derive(Clone, Copy, Debug)]
pub enum BlobSource<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file.
    File(&'a Path),
}

/// A blob to be there.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'a> {
    /// `sha256:HEX`.
    pub digest: &'a str,
    /// Bytes.
    pub size: u64,
    /// Its content.
    pub source: BlobSource<'a>,
    /// Another repository of the same registry that has it, as far as known.
    pub mount_from: Option<&'a str>,
}

/// A manifest or index to be there.
#[derive(Clone, Copy, Debug)]
pub struct Manifest<'a> {
    /// `sha256:HEX`.
    pub digest: &'a str,
    /// Its exact media type.
    pub media_type: &'a str,
    /// Its exact bytes.
    pub bytes: &'a [u8],
}

/// Everything that is pushed, in the order in which it must be there.
#[derive(Clone, Debug, Default)]
pub struct Push<'a> {
    /// Layers and configurations.
    pub blobs: Vec<Blob<'a>>,
    /// Manifests, what is referred to first.
    pub manifests: Vec<Manifest<'a>>,
    /// What the tags point to.
    pub top: Option<Manifest<'a>>,
    /// Manifests that refer to one of the others (their `subject`), with the digest of that.
    pub referrers: Vec<(Manifest<'a>, &'a str)>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: u32,
    /// Bytes of them.
    pub bytes: u64,
    /// Blobs that were there.
    pub present: u32,
    /// Blobs that another repository had.
    pub mounted: u32,
}

/// How a blob came to be there.
enum Came {
    Present,
    Mounted,
    Sent(u64),
}

/// A connection to a repository of a registry.
pub struct Registry {
    client: Client,
    base: String,
    reference: Reference,
    login: Option<Login>,
    token: tokio::sync::Mutex<Option<String>>,
    /// What a token is asked for, where the registry does not say.
    scopes: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

impl Registry {
    /// Prepares a connection; plain HTTP only to this machine, or if `insecure`.
    ///
    /// # Errors
    /// [`RegistryError::NoAnswer`] if the system gives no event loop or no certificates.
    pub fn new(
        reference: &Reference,
        files: &CredentialFiles,
        insecure: bool,
    ) -> Result<Self, RegistryError> {
        let login = files.find(&reference.registry, &reference.repository);
        let scopes = vec![format!("repository:{}:pull,push", reference.repository)];
        Self::connect(reference, login, scopes, insecure)
    }

    /// Prepares a connection for somebody.
    fn connect(
        reference: &Reference,
        login: Option<Login>,
        scopes: Vec<String>,
        insecure: bool,
    ) -> Result<Self, RegistryError> {
        let failed = |cause: String| RegistryError::NoAnswer {
            method: "connect".to_owned(),
            path: reference.registry.clone(),
            cause,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(crate::root::cause(&error)))?;
        let client = Client::builder()
            .user_agent(concat!("ibex/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let scheme = match insecure || reference.is_loopback() {
            true => "http",
            false => "https",
        };
        Ok(Self {
            client,
            base: format!(
                "{scheme}://{}/v2/{}",
                reference.host(),
                reference.repository
            ),
            login,
            reference: reference.clone(),
            token: tokio::sync::Mutex::default(),
            scopes,
            runtime,
        })
    }

    /// Pushes everything, and points the tags to the top.
    ///
    /// # Errors
    /// [`RegistryError`]; the tags are as before then, unless one of them was the last step.
    pub fn push(&mut self, push: &Push<'_>, tags: &[String]) -> Result<Pushed, RegistryError> {
        // Where something is mounted from must be readable, too.
        for other in push.blobs.iter().filter_map(|blob| blob.mount_from) {
            let scope = format!("repository:{other}:pull");
            if !self.scopes.contains(&scope) {
                self.scopes.push(scope);
            }
        }
        let this = &*self;
        this.runtime.block_on(async {
            let mut pushed = Pushed::default();
            let mut rest = push.blobs.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(AT_ONCE));
                rest = later;
                for came in this.several(now).await {
                    match came? {
                        Came::Present => pushed.present += 1,
                        Came::Mounted => pushed.mounted += 1,
                        Came::Sent(bytes) => {
                            pushed.sent += 1;
                            pushed.bytes += bytes;
                        }
                    }
                }
            }
            for manifest in push.manifests.iter().chain(&push.top) {
                this.manifest(manifest, manifest.digest).await?;
            }
            for (manifest, subject) in &push.referrers {
                if !this.manifest(manifest, manifest.digest).await? {
                    this.refer(manifest, subject).await?;
                }
            }
            if let Some(top) = &push.top {
                for tag in tags {
                    this.manifest(top, tag).await?;
                }
            }
            Ok(pushed)
        })
    }

    /// Sends up to four blobs at the same time.
    async fn several(&self, blobs: &[Blob<'_>]) -> Vec<Result<Came, RegistryError>> {
        let one = async |at: usize| match blobs.get(at) {
            Some(blob) => Some(self.blob(blob).await),
            None => None,
        };
        let (a, b, c, d) = tokio::join!(one(0), one(1), one(2), one(3));
        [a, b, c, d].into_iter().flatten().collect()
    }

    async fn blob(&self, blob: &Blob<'_>) -> Result<Came, RegistryError> {
        let url = format!("{}/blobs/{}", self.base, blob.digest);
        let found = self.send(Method::HEAD, &url, |request| request).await?;
        if found.status() == StatusCode::OK {
            return Ok(Came::Present);
        }
        let start = format!("{}/blobs/uploads/", self.base);
        let mut begun = None;
        if let Some(other) = blob.mount_from {
            let mount = format!("{start}?mount={}&from={other}", blob.digest);
            let answer = self.send(Method::POST, &mount, empty).await?;
            match answer.status() {
                StatusCode::CREATED => return Ok(Came::Mounted),
                // It does not want to; this is an upload that was begun.
                StatusCode::ACCEPTED => begun = Some(Upload::of(&answer, &mount)?),
                _ => {}
            }
        }
        let bytes = self.upload(blob, &start, begun).await?;
        Ok(Came::Sent(bytes))
    }

    /// Puts a manifest under a digest or tag; returns whether the registry noted its subject.
    async fn manifest(&self, manifest: &Manifest<'_>, name: &str) -> Result<bool, RegistryError> {
        let url = format!("{}/manifests/{name}", self.base);
        let put = |request: RequestBuilder| {
            request
                .header(CONTENT_TYPE, manifest.media_type)
                .body(manifest.bytes.to_vec())
        };
        let answer = self.send(Method::PUT, &url, put).await?;
        if !answer.status().is_success() {
            return Err(self.refused(Method::PUT, &url, answer).await);
        }
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok());
        if let Some(found) = header("docker-content-digest").filter(|d| *d != manifest.digest) {
            return Err(RegistryError::Wrong {
                path: path(&url),
                found: found.to_owned(),
                wanted: manifest.digest.to_owned(),
            });
        }
        Ok(header("oci-subject").is_some())
    }

    /// Enters a manifest into the list of what refers to another one, where the registry does not do
    /// it by itself.
    async fn refer(&self, manifest: &Manifest<'_>, subject: &str) -> Result<(), RegistryError> {
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let tag = subject.replace(':', "-");
        let url = format!("{}/manifests/{tag}", self.base);
        let accept = |request: RequestBuilder| request.header("accept", INDEX);
        let answer = self.send(Method::GET, &url, accept).await?;
        let mut list = serde_json::json!({
            "schemaVersion": 2, "mediaType": INDEX, "manifests": [],
        });
        match answer.status() {
            StatusCode::NOT_FOUND => {}
            StatusCode::OK => {
                let bytes = read(answer).await.unwrap_or_default();
                list = serde_json::from_slice(&bytes).unwrap_or(list);
            }
            _ => return Err(self.refused(Method::GET, &url, answer).await),
        }
        let inner: serde_json::Value = serde_json::from_slice(manifest.bytes).unwrap_or_default();
        let entry = serde_json::json!({
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
            "artifactType": inner["artifactType"],
        });
        let Some(entries) = list["manifests"].as_array_mut() else {
            return Ok(());
        };
        if entries
            .iter()
            .any(|known| known["digest"] == entry["digest"])
        {
            return Ok(());
        }
        entries.push(entry);
        let bytes = list.to_string().into_bytes();
        let put = |request: RequestBuilder| request.header(CONTENT_TYPE, INDEX).body(bytes.clone());
        let answer = self.send(Method::PUT, &url, put).await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(Method::PUT, &url, answer).await),
        }
    }

    /// Sends a request, again where that may help, with credentials where they are asked for.
    async fn send(
        &self,
        method: Method,
        url: &str,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut last = None;
        let (mut wait, mut asked) = (None, false);
        let mut round = 0;
        while round < TRIES {
            pause(round, wait.take()).await;
            let authorization = self.authorization().await;
            let request = fill(self.client.request(method.clone(), url));
            let answer = authorize(request, authorization.as_deref()).send().await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    last = Some(no_answer(&method, url, &error));
                    round += 1;
                    continue;
                }
            };
            if answer.status() == StatusCode::UNAUTHORIZED && !asked {
                asked = true;
                self.log_in(&challenge(&answer), authorization).await?;
                continue;
            }
            if may_pass(answer.status()) {
                let header = answer.headers().get("retry-after");
                let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
                wait = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
                last = Some(self.refused(method.clone(), url, answer).await);
                round += 1;
                continue;
            }
            if matches!(
                answer.status(),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            ) {
                return Err(self.refused(method, url, answer).await);
            }
            return Ok(answer);
        }
        Err(last.expect("there was a try"))
    }

    async fn authorization(&self) -> Option<String> {
        self.token.lock().await.clone()
    }

    /// Answers a challenge to a request that had the authorization `used`. Several requests may be
    /// refused at the same time; one of them asks for all.
    async fn log_in(&self, challenge: &str, used: Option<String>) -> Result<(), RegistryError> {
        let mut token = self.token.lock().await;
        if *token == used {
            *token = Some(self.answer(challenge).await?);
        }
        Ok(())
    }

    /// Returns the authorization that a challenge asks for: the login itself, or a token for it.
    async fn answer(&self, challenge: &str) -> Result<String, RegistryError> {
        let denied = |status: u16| self.denied(status);
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let login = self.login.as_ref().ok_or_else(|| denied(401))?;
            return Ok(basic(login));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(denied(401));
        }
        let values = parameters(rest);
        let realm = values.get("realm").ok_or_else(|| denied(401))?;
        let mut url = Url::parse(realm).map_err(|_| denied(401))?;
        // What the registry asks for now, and what the rest of the work will need.
        let asked = values.get("scope").filter(|scope| !scope.is_empty());
        let mut scopes: Vec<&str> = asked.map(String::as_str).into_iter().collect();
        let more = self.scopes.iter().map(String::as_str);
        scopes.extend(more.filter(|scope| asked.is_none_or(|asked| asked != scope)));
        let service = values.get("service").map(String::as_str);
        // A login goes to the token service that the registry names, if the way there is safe.
        let safe = url.scheme() == "https" || self.base.starts_with("http://");
        let login = self.login.as_ref().filter(|_| safe);
        let (method, request) = match login.filter(|login| login.user.is_empty()) {
            // An identity token stands for the login; it is exchanged, as OAuth 2 has it.
            Some(login) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", "ibex");
                form.append_pair("refresh_token", &login.password);
                form.append_pair("scope", &scopes.join(" "));
                if let Some(service) = service {
                    form.append_pair("service", service);
                }
                let request = self.client.post(url.clone());
                let kind = "application/x-www-form-urlencoded";
                let request = request.header(CONTENT_TYPE, kind).body(form.finish());
                (Method::POST, request)
            }
            None => {
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    for scope in &scopes {
                        query.append_pair("scope", scope);
                    }
                }
                let request = self.client.get(url.clone());
                let request = match login {
                    Some(login) => request.header(AUTHORIZATION, basic(login)),
                    None => request,
                };
                (Method::GET, request)
            }
        };
        let answer = request.send().await;
        let answer = answer.map_err(|error| no_answer(&method, url.as_str(), &error))?;
        if !answer.status().is_success() {
            return Err(denied(answer.status().as_u16()));
        }
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let bytes = read(answer).await.unwrap_or_default();
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| denied(401))?;
        let token = if token.token.is_empty() {
            token.access_token
        } else {
            token.token
        };
        if token.is_empty() {
            return Err(denied(401));
        }
        Ok(format!("Bearer {token}"))
    }

    fn denied(&self, status: u16) -> RegistryError {
        RegistryError::Denied {
            registry: self.reference.registry.clone(),
            status,
            source_name: match &self.login {
                Some(login) => login.source.clone(),
                None => "none".to_owned(),
            },
        }
    }

    /// Makes the error of an answer.
    async fn refused(&self, method: Method, url: &str, answer: Response) -> RegistryError {
        #[derive(Default, Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<OneError>,
        }
        #[derive(Default, Deserialize)]
        struct OneError {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = answer.status().as_u16();
        if matches!(status, 401 | 403) {
            return self.denied(status);
        }
        let bytes = read(answer).await.unwrap_or_default();
        let errors: Errors = serde_json::from_slice(&bytes).unwrap_or_default();
        let first = errors.errors.into_iter().next().unwrap_or_default();
        RegistryError::Refused {
            method: method.to_string(),
            path: path(url),
            status,
            code: first.code,
            message: first.message,
        }
    }
}

fn empty(request: RequestBuilder) -> RequestBuilder {
    request.header(CONTENT_LENGTH, 0)
}

/// Waits before a round that is not the first.
async fn pause(round: u32, asked: Option<Duration>) {
    if round > 0 {
        let wait = asked.unwrap_or(BACK_OFF * 2u32.pow(round - 1));
        tokio::time::sleep(wait).await;
    }
}

fn may_pass(status: StatusCode) -> bool {
    let server = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
    server || matches!(status.as_u16(), 408 | 429)
}

fn authorize(request: RequestBuilder, authorization: Option<&str>) -> RequestBuilder {
    match authorization {
        Some(text) => request.header(AUTHORIZATION, text),
        None => request,
    }
}

fn basic(login: &Login) -> String {
    let text = format!("{}:{}", login.user, login.password);
    format!("Basic {}", data_encoding::BASE64.encode(text.as_bytes()))
}

fn challenge(answer: &Response) -> String {
    let header = answer.headers().get(WWW_AUTHENTICATE);
    header
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// Reads `key="value",…` of a challenge.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut values = HashMap::new();
    let mut rest = text.trim();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => match after.find(',') {
                Some(at) => after.split_at(at),
                None => (after, ""),
            },
        };
        let key = key
            .trim()
            .trim_start_matches(',')
            .trim()
            .to_ascii_lowercase();
        values.insert(key, value.to_owned());
        rest = next.trim_start_matches([',', ' ']);
    }
    values
}

/// Returns an address without credentials, and without what only the registry understands.
fn path(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| url.to_owned(),
        |url| format!("{}{}", url.origin().ascii_serialization(), url.path()),
    )
}

fn no_answer(method: &Method, url: &str, error: &reqwest::Error) -> RegistryError {
    let mut cause = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        cause = inner.to_string();
        source = inner.source();
    }
    RegistryError::NoAnswer {
        method: method.to_string(),
        path: path(url),
        cause,
    }
}

/// Reads an answer of a sensible size.
async fn read(mut answer: Response) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if bytes.len() + chunk.len() > LARGEST_ANSWER {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let values = parameters(
            r#"realm="https://auth.example/token?a=b",service="r.example",scope="repository:x:pull,push""#,
        );
        assert_eq!(values["realm"], "https://auth.example/token?a=b");
        assert_eq!(values["service"], "r.example");
        assert_eq!(values["scope"], "repository:x:pull,push");
        assert_eq!(parameters("realm=plain, charset=x")["charset"], "x");
        assert!(parameters("").is_empty());
    }
}

//! HTTP: one request at a time made well, with apk's words for what went wrong
//! (formats.md, chapter 12; cli.md, 1.16).
//!
//! A [`Session`] keeps connections, credentials and what it learnt about servers. Retries and the
//! choice among mirrors are in `Turns`; what is done with the bytes is the caller's business.
//! Credentials are taken out of addresses before anything else sees them, go only to the origin
//! they are for, and are in no message.

use crate::config::repositories::without_credentials;
use crate::config::transport::Credentials;
use crate::config::{Settings, Transport};
use crate::format::FormatError;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_RANGE, HeaderMap, HeaderValue, LOCATION, RANGE, REFERER,
};
use reqwest::{Client, Proxy, Response, StatusCode, Url};
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a server is asked for the same thing; only what may pass is asked again.
const ROUNDS: u32 = 3;

/// The wait before the second round; it doubles. A mirror that restarts is back after that.
const BACK_OFF: Duration = Duration::from_millis(200);

/// The longest wait that a server may ask for with `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Redirects that are followed for one request, as browsers and curl have it.
const REDIRECTS: usize = 10;

/// With another mirror at hand nobody waits longer than this for one without progress.
const PATIENCE_WITH_MIRRORS: Duration = Duration::from_secs(10);

/// Fewer bytes a second than this, over the whole time-out, is no progress: a single connection
/// over a satellite or a phone is a hundred times quicker.
const SLOWEST: u64 = 64;

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass: ask again, another mirror first.
    Again,
    /// What came was wrong: once more, past all caches, after the other mirrors.
    Afresh,
    /// This server will not give it: only another mirror helps.
    Elsewhere,
    /// Nothing on the network helps.
    None,
}

/// Why something could not be fetched; the texts are apk's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct HttpError {
    text: String,
    remedy: Remedy,
    wait: Option<Duration>,
    status: Option<u16>,
    /// The server as a whole is in trouble, not only this file.
    server: bool,
}

impl HttpError {
    /// A server says that nothing changed, and was not asked that.
    pub(super) fn unasked() -> Self {
        Self::new(
            "the server answers that nothing changed (304), which it was not asked",
            Remedy::Elsewhere,
        )
    }

    /// Makes an error.
    pub(super) fn new(text: impl Into<String>, remedy: Remedy) -> Self {
        Self {
            text: text.into(),
            remedy,
            wait: None,
            status: None,
            server: false,
        }
    }

    /// Makes an error of this machine's disk.
    pub(super) fn local(error: &std::io::Error) -> Self {
        Self::new(crate::root::cause(error), Remedy::None)
    }

    /// Makes an error that only another mirror helps against.
    pub(super) fn elsewhere(text: impl Into<String>) -> Self {
        Self::new(text, Remedy::Elsewhere)
    }

    /// Says that more came than is read of it; `what` is named, and the limit.
    pub(super) fn too_large(what: &'static str, limit: u64) -> Self {
        Self::elsewhere(FormatError::TooLarge { what, limit }.to_string())
    }

    /// Says that nothing came for too long.
    fn stalled() -> Self {
        Self {
            server: true,
            ..Self::new("Connection timed out", Remedy::Again)
        }
    }

    /// Returns what can be done about it.
    pub fn remedy(&self) -> Remedy {
        self.remedy
    }

    /// Returns whether the server says that there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self.status, Some(404 | 410))
    }

    fn status(response: &Response) -> Self {
        let status = response.status();
        let known = matches!(status.as_u16(), 400 | 401 | 403..=408 | 500..=504);
        let text = match (known, status.as_u16()) {
            (true, 408) => "HTTP 408: Timeout".to_owned(),
            (true, code) => {
                let reason = status.canonical_reason().unwrap_or_default();
                format!("HTTP {code}: {reason}")
            }
            (false, _) => "HTTP: unrecognized server error".to_owned(),
        };
        let may_pass = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        let may_pass = may_pass || matches!(status.as_u16(), 408 | 425 | 429);
        let wait = response.headers().get(reqwest::header::RETRY_AFTER);
        let wait = wait.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            wait: wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)),
            status: Some(status.as_u16()),
            server: may_pass,
            ..Self::new(
                text,
                if may_pass {
                    Remedy::Again
                } else {
                    Remedy::Elsewhere
                },
            )
        }
    }

    fn request(error: &reqwest::Error) -> Self {
        let again = |text: &str| Self {
            server: true,
            ..Self::new(text, Remedy::Again)
        };
        let elsewhere = |text: &str| Self {
            server: true,
            ..Self::new(text, Remedy::Elsewhere)
        };
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
            } else if words.contains("Temporary failure in name resolution") {
                return again("DNS: transient error (try again later)");
            } else if words.contains("invalid peer certificate") {
                let host =
                    words.contains("NotValidForName") || words.contains("not valid for name");
                return elsewhere(if host {
                    "TLS: server hostname mismatch"
                } else {
                    "TLS: server certificate not trusted"
                });
            } else if words.contains("CertificateRequired") || words.contains("HandshakeFailure") {
                return elsewhere("TLS: handshake failed (client cert needed?)");
            } else if words.contains("received corrupt message") {
                // What came is no TLS, such as the answer of a server of plain HTTP.
                return elsewhere("TLS: unspecified error");
            }
            source = inner.source();
        }
        if error.is_timeout() {
            return Self::stalled();
        }
        if error.is_builder() {
            return invalid_url();
        }
        match text {
            Some(text) if text.starts_with("DNS: name does not exist") => elsewhere(&text),
            Some(text) => again(&text),
            None if error.is_body() || error.is_decode() => {
                Self::new("unexpected end of file", Remedy::Again)
            }
            None => again("remote server returned error (try 'apk update')"),
        }
    }
}

fn invalid_url() -> HttpError {
    HttpError::new(
        "invalid URL (check your repositories file)",
        Remedy::Elsewhere,
    )
}

/// A client with its runtime: connections stay open from one use to the next.
pub struct Session {
    settings: Settings,
    plain: OnceCell<Result<Client, HttpError>>,
    secure: OnceCell<Result<Client, HttpError>>,
    /// Credentials that an origin asked for and took.
    accepted: RefCell<HashMap<String, Credentials>>,
    /// How often an origin failed as a whole.
    demerits: RefCell<HashMap<String, u32>>,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

/// A request that is about to be sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) headers: HeaderMap,
    /// The first byte that is wanted.
    pub(super) from: u64,
    /// Past caches between here and the server.
    pub(super) fresh: bool,
    /// There are other mirrors.
    pub(super) mirrors: bool,
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    response: Response,
    /// Bytes of the body that the caller has already.
    skip: u64,
    patience: Duration,
    since: Instant,
    received: u64,
    /// Bytes that may still come, of these at most.
    room: u64,
    most: u64,
    /// The server says that the file has moved for good: to here.
    pub(super) moved: Option<String>,
}

impl Session {
    /// Prepares a session; nothing is connected yet.
    ///
    /// # Errors
    /// [`HttpError`] if the system gives no event loop.
    pub fn new(settings: &Settings) -> Result<Self, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| HttpError::local(&error))?;
        Ok(Self {
            settings: settings.clone(),
            plain: OnceCell::new(),
            secure: OnceCell::new(),
            accepted: RefCell::default(),
            demerits: RefCell::default(),
            runtime,
        })
    }

    /// Sends a request and follows redirects until there is a body to read (or 304).
    pub(super) async fn open(&self, url: &str, ask: &Ask) -> Result<Answer, HttpError> {
        let mut url = Url::parse(url).map_err(|_| invalid_url())?;
        let patience = self.patience(ask.mirrors);
        let mut credentials = self.credentials_for(&mut url);
        let mut asked = false;
        let mut moved = None;
        for _ in 0..=REDIRECTS {
            let request = self.request(&url, credentials.as_ref(), ask)?;
            let response = match tokio::time::timeout(patience, request.send()).await {
                Err(_) => return Err(HttpError::stalled()),
                Ok(sent) => sent.map_err(|error| self.unreached(&url, &error))?,
            };
            let status = response.status();
            if let Some(mut next) = redirect(&url, &response)? {
                if status == StatusCode::MOVED_PERMANENTLY {
                    moved = Some(without_credentials(next.as_str()));
                }
                let same = next.origin() == url.origin();
                let own = self.credentials_for(&mut next);
                credentials = own.or(credentials.filter(|_| same));
                url = next;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && !asked && credentials.is_none() {
                asked = true;
                let host = url.host_str().unwrap_or("");
                let host = match url.port() {
                    Some(port) => format!("{host}:{port}"),
                    None => host.to_owned(),
                };
                let found = self.transport().credentials_for(&host);
                credentials = found.map(|(credentials, _)| credentials);
                if credentials.is_some() {
                    continue;
                }
            }
            if !status.is_success() && status != StatusCode::NOT_MODIFIED {
                return Err(HttpError::status(&response));
            }
            if let (true, Some(credentials)) = (asked, credentials) {
                let origin = url.origin().ascii_serialization();
                self.accepted.borrow_mut().insert(origin, credentials);
            }
            // A server without ranges sends everything; what is there already is passed over.
            let skip = match status {
                StatusCode::PARTIAL_CONTENT => check_range(&response, ask.from)?,
                _ => ask.from,
            };
            return Ok(Answer {
                response,
                skip,
                patience,
                since: Instant::now(),
                received: 0,
                room: self.limits().response,
                most: self.limits().response,
                moved,
            });
        }
        Err(HttpError::new(
            "HTTP: too many redirects",
            Remedy::Elsewhere,
        ))
    }

    /// Returns the bounds on what is read.
    pub(super) fn limits(&self) -> crate::format::Limits {
        self.settings.limits
    }

    fn transport(&self) -> &Transport {
        &self.settings.transport
    }

    fn patience(&self, mirrors: bool) -> Duration {
        let patience = Duration::from_secs(self.settings.timeout.max(1));
        match mirrors {
            true => patience.min(PATIENCE_WITH_MIRRORS),
            false => patience,
        }
    }

    /// Takes name and password out of an address, or returns what its origin took before.
    fn credentials_for(&self, url: &mut Url) -> Option<Credentials> {
        if url.username().is_empty() && url.password().is_none() {
            let origin = url.origin().ascii_serialization();
            return self.accepted.borrow().get(&origin).cloned();
        }
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let found = Credentials {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
            bearer: false,
        };
        // Both can only fail for addresses without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Some(found)
    }

    fn request(
        &self,
        url: &Url,
        credentials: Option<&Credentials>,
        ask: &Ask,
    ) -> Result<reqwest::RequestBuilder, HttpError> {
        let mut request = self
            .client(url)?
            .get(url.clone())
            .headers(ask.headers.clone());
        if ask.fresh {
            request = request.header(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        if ask.from > 0 {
            request = request.header(RANGE, format!("bytes={}-", ask.from));
        }
        if let Some(credentials) = credentials {
            request = match credentials.bearer {
                true => request.bearer_auth(&credentials.password),
                false => request.basic_auth(&credentials.user, Some(&credentials.password)),
            };
        }
        if let Some(referer) = &self.transport().referer {
            let own = referer == "auto";
            request = request.header(REFERER, if own { url.as_str() } else { referer });
        }
        Ok(request)
    }

    /// Returns the client for an address. Reading the system's certificates takes longer than a
    /// small download, so only what needs them has them.
    fn client(&self, url: &Url) -> Result<&Client, HttpError> {
        let client = match url.scheme() {
            "http" => self.plain.get_or_init(|| self.make_client(false)),
            "https" => self.secure.get_or_init(|| self.make_client(true)),
            _ => return Err(invalid_url()),
        };
        client.as_ref().map_err(Clone::clone)
    }

    fn make_client(&self, secure: bool) -> Result<Client, HttpError> {
        let transport = self.transport();
        let patience = self.patience(false);
        let mut builder = Client::builder()
            .user_agent(
                transport
                    .user_agent
                    .as_deref()
                    .unwrap_or(concat!("ibex/", env!("CARGO_PKG_VERSION"))),
            )
            .connect_timeout(patience)
            .local_address(transport.bind)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .no_proxy();
        for proxy in self.proxies()? {
            builder = builder.proxy(proxy);
        }
        if secure {
            builder = self.certificates(builder)?;
        } else {
            builder = builder.tls_built_in_root_certs(false);
        }
        builder.build().map_err(|error| {
            // Only what the user gave can be wrong here: certificates and keys.
            let mut innermost: &dyn std::error::Error = &error;
            while let Some(source) = innermost.source() {
                innermost = source;
            }
            HttpError::new(format!("TLS: cannot be set up: {innermost}"), Remedy::None)
        })
    }

    /// Says why nothing came, and by which way it was tried: that may be what is wrong.
    fn unreached(&self, url: &Url, error: &reqwest::Error) -> HttpError {
        let mut failed = HttpError::request(error);
        let transport = self.transport();
        let proxy = match url.scheme() {
            "https" => &transport.https_proxy,
            _ => &transport.http_proxy,
        };
        // Who has exceptions may have gone there directly.
        if let (Some(proxy), None) = (proxy, &transport.no_proxy)
            && error.is_connect()
        {
            let shown = without_credentials(proxy);
            failed.text = format!("{} (by way of the proxy {shown})", failed.text);
        }
        failed
    }

    fn proxies(&self) -> Result<Vec<Proxy>, HttpError> {
        let transport = self.transport();
        let direct = transport.no_proxy.as_deref();
        let direct = direct.and_then(reqwest::NoProxy::from_string);
        let mut proxies = Vec::new();
        for (scheme, address) in [
            ("http", &transport.http_proxy),
            ("https", &transport.https_proxy),
        ] {
            let Some(address) = address else { continue };
            // A proxy that cannot be used is no reason to go round it.
            let unusable = || {
                let shown = without_credentials(address);
                HttpError::new(format!("cannot use the proxy {shown}"), Remedy::None)
            };
            let mut url = match address.contains("://") {
                true => Url::parse(address),
                false => Url::parse(&format!("http://{address}")),
            }
            .map_err(|_| unusable())?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(unusable());
            }
            let own = self.credentials_for(&mut url);
            let made = match scheme {
                "http" => Proxy::http(url),
                _ => Proxy::https(url),
            };
            let mut proxy = made.map_err(|_| unusable())?.no_proxy(direct.clone());
            if let Some(found) = own.or_else(|| transport.proxy_credentials.clone()) {
                proxy = proxy.basic_auth(&found.user, &found.password);
            }
            proxies.push(proxy);
        }
        Ok(proxies)
    }

    fn certificates(
        &self,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, HttpError> {
        let transport = self.transport();
        let wrong = |path: &std::path::Path, why: String| {
            HttpError::new(
                format!("TLS: cannot use {}: {why}", path.display()),
                Remedy::None,
            )
        };
        builder = builder
            .danger_accept_invalid_certs(!self.settings.check_certificate)
            .danger_accept_invalid_hostnames(transport.any_hostname);
        if let Ok(pem) = std::fs::read(&transport.authorities) {
            let found = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|_| wrong(&transport.authorities, "it holds no certificate".into()))?;
            builder = builder.tls_built_in_root_certs(false);
            for certificate in found {
                builder = builder.add_root_certificate(certificate);
            }
            if let Ok(pem) = std::fs::read(&transport.revoked) {
                let lists = reqwest::tls::CertificateRevocationList::from_pem_bundle(&pem)
                    .map_err(|_| wrong(&transport.revoked, "it holds no list".into()))?;
                builder = builder.add_crls(lists);
            }
        }
        if let Some(path) = &transport.certificate {
            let read = |path: &std::path::Path| {
                std::fs::read(path).map_err(|error| wrong(path, crate::root::cause(&error)))
            };
            let mut pem = read(path)?;
            if let Some(key) = &transport.certificate_key {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|_| wrong(path, "it is no certificate with its key".into()))?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }

    /// Notes how a request to a server ended.
    pub(super) fn judge(&self, url: &str, failure: Option<&HttpError>) {
        let origin = origin(url);
        match failure {
            None => {
                self.demerits.borrow_mut().remove(&origin);
            }
            Some(error) if error.server => {
                *self.demerits.borrow_mut().entry(origin).or_default() += 1;
            }
            Some(_) => {}
        }
    }

    /// Returns the numbers of addresses, those of servers in trouble last.
    fn order(&self, urls: &[String]) -> Vec<usize> {
        let demerits = self.demerits.borrow();
        let mut order: Vec<usize> = (0..urls.len()).collect();
        order.sort_by_key(|at| demerits.get(&origin(&urls[*at])).copied().unwrap_or(0) > 0);
        order
    }
}

/// Returns what identifies a server.
pub(super) fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| without_credentials(url),
        |url| url.origin().ascii_serialization(),
    )
}

/// Returns where an answer sends us, if it does.
fn redirect(from: &Url, response: &Response) -> Result<Option<Url>, HttpError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let broken = || HttpError::new("HTTP: redirected to nowhere", Remedy::Elsewhere);
    let next = from
        .join(location.ok_or_else(broken)?)
        .map_err(|_| broken())?;
    Ok(Some(next))
}

/// Checks that a partial answer begins where it was asked to; returns what to pass over.
fn check_range(response: &Response, from: u64) -> Result<u64, HttpError> {
    let range = response.headers().get(CONTENT_RANGE);
    let range = range.and_then(|value| value.to_str().ok());
    let start = range.and_then(|text| {
        let (start, _) = text.strip_prefix("bytes ")?.split_once('-')?;
        start.trim().parse::<u64>().ok()
    });
    match start {
        Some(start) if start <= from => Ok(from - start),
        _ => Err(HttpError::new(
            "remote server returned error (try 'apk update')",
            Remedy::Afresh,
        )),
    }
}

impl Answer {
    /// Returns the headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Returns whether the copy that the caller has is current.
    pub(super) fn is_unchanged(&self) -> bool {
        self.response.status() == StatusCode::NOT_MODIFIED
    }

    /// Returns the size of the whole file, if the server states one.
    pub(super) fn whole_size(&self) -> Option<u64> {
        if self.response.status() == StatusCode::PARTIAL_CONTENT {
            let range = self.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            return range.rsplit_once('/')?.1.parse().ok();
        }
        self.response.content_length()
    }

    /// Returns the next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`HttpError`] if the connection breaks or makes no progress.
    pub(super) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, HttpError> {
        loop {
            let next = tokio::time::timeout(self.patience, self.response.chunk()).await;
            let next = next.map_err(|_| HttpError::stalled())?;
            let Some(mut chunk) = next.map_err(|error| HttpError::request(&error))? else {
                return Ok(None);
            };
            self.pace(chunk.len() as u64)?;
            self.count(chunk.len() as u64)?;
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            let rest = chunk.split_off(skipped as usize);
            if !rest.is_empty() {
                return Ok(Some(rest));
            }
        }
    }

    /// Gives up on a server that does not stop.
    fn count(&mut self, count: u64) -> Result<(), HttpError> {
        let room = self.room.checked_sub(count);
        self.room = room.ok_or_else(|| HttpError::too_large("answer", self.most))?;
        Ok(())
    }

    /// Gives up on a server that sends a byte now and then.
    fn pace(&mut self, count: u64) -> Result<(), HttpError> {
        self.received += count;
        let passed = self.since.elapsed();
        if passed < self.patience {
            return Ok(());
        }
        if self.received < SLOWEST.saturating_mul(passed.as_secs()) {
            return Err(HttpError::stalled());
        }
        (self.received, self.since) = (0, Instant::now());
        Ok(())
    }
}

/// Whose turn it is to be asked for one file: mirror after mirror, then again after a wait.
pub(super) struct Turns {
    /// Numbers of addresses that may still be asked, the preferred first.
    open: Vec<usize>,
    /// Where in `open` the next one is.
    next: usize,
    round: u32,
    wait: Duration,
    /// Addresses that gave something wrong once.
    afresh: Vec<usize>,
    /// What went wrong, in order.
    pub(super) failures: Vec<(usize, HttpError)>,
}

/// The next address to ask.
pub(super) struct Turn {
    pub(super) number: usize,
    /// Past caches.
    pub(super) fresh: bool,
}

impl Turns {
    /// Begins with the servers that are not known to be in trouble.
    pub(super) fn new(session: &Session, urls: &[String]) -> Self {
        Self {
            open: session.order(urls),
            next: 0,
            round: 0,
            wait: Duration::ZERO,
            afresh: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Returns whom to ask next, after the wait that is due; `None` if nobody is left.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        if self.next >= self.open.len() {
            self.next = 0;
            self.round += 1;
            if self.open.is_empty() || self.round >= ROUNDS {
                return None;
            }
            let wait = (BACK_OFF * 2_u32.pow(self.round - 1)).max(self.wait);
            self.wait = Duration::ZERO;
            tokio::time::sleep(wait).await;
        }
        let number = self.open[self.next];
        Some(Turn {
            number,
            fresh: self.afresh.contains(&number),
        })
    }

    /// Notes a failure of the one whose turn it was; `false` if asking others is no use.
    pub(super) fn failed(&mut self, turn: &Turn, error: HttpError) -> bool {
        let stays = match error.remedy {
            Remedy::Again => true,
            Remedy::Afresh if turn.fresh => false,
            Remedy::Afresh => {
                self.afresh.push(turn.number);
                true
            }
            Remedy::Elsewhere | Remedy::None => false,
        };
        self.wait = self.wait.max(error.wait.unwrap_or_default());
        if stays {
            self.next += 1;
        } else {
            self.open.retain(|number| *number != turn.number);
        }
        let useful = error.remedy != Remedy::None;
        self.failures.push((turn.number, error));
        useful
    }

    /// Notes that part of the file came: who is asked again is not asked in vain.
    pub(super) fn progressed(&mut self) {
        self.round = 0;
    }

    /// Returns the failure to tell of: the last one of the address that was asked first.
    pub(super) fn verdict(&self) -> HttpError {
        let first = self.failures.first().map(|(number, _)| *number);
        let local = self
            .failures
            .iter()
            .find(|(_, error)| error.remedy == Remedy::None);
        let last = self
            .failures
            .iter()
            .rev()
            .find(|(number, _)| Some(*number) == first);
        local
            .or(last)
            .map_or_else(invalid_url, |(_, error)| error.clone())
    }
}

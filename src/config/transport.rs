//! How the network is reached: what options and environment say (cli.md, 1.7; formats.md, 12).
//!
//! Passwords live here in memory only: nothing of this is printed, and `Debug` hides them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// A name and a password for a server or a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
    /// The password is a token that stands alone.
    pub bearer: bool,
}

/// Credentials for some hosts only (image.md, 13.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCredentials {
    /// A host, or `*.` and a domain whose hosts are meant.
    pub host: String,
    /// The credentials.
    pub credentials: Credentials,
}

impl HostCredentials {
    /// Reads `basic:HOST:USER:PASSWORD` and `bearer:HOST:TOKEN`, one a line; `HOST` may have a port.
    pub fn parse_lines(text: &str) -> Vec<Self> {
        text.lines()
            .filter_map(|line| Self::parse(line.trim()))
            .collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let (scheme, rest) = line.split_once(':')?;
        let (mut host, mut rest) = rest.split_once(':')?;
        let digits = rest.split(':').next().unwrap_or_default();
        let port = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // A number between host and the rest is a port, if something is left behind it.
        if port && rest.len() > digits.len() && rest[digits.len() + 1..].contains(':') {
            let end = host.len() + 1 + digits.len();
            host = &line[scheme.len() + 1..scheme.len() + 1 + end];
            rest = &rest[digits.len() + 1..];
        }
        let credentials = match scheme.to_ascii_lowercase().as_str() {
            "basic" => {
                let (user, password) = rest.split_once(':')?;
                Credentials {
                    user: user.to_owned(),
                    password: password.to_owned(),
                    bearer: false,
                }
            }
            "bearer" => Credentials {
                user: String::new(),
                password: rest.to_owned(),
                bearer: true,
            },
            _ => return None,
        };
        Some(Self {
            host: host.to_owned(),
            credentials,
        })
    }

    fn is_for(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        match self.host.strip_prefix('*') {
            Some("") => true,
            Some(domain) => name.ends_with(domain),
            None => self.host == host || self.host == name,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:*", self.user)
    }
}

impl Credentials {
    /// Reads `basic:REALM:USER:PASSWORD`, the form of `HTTP_AUTH`; the realm is not looked at.
    fn from_variable(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let scheme = parts.next()?;
        let (_realm, user, password) = (parts.next()?, parts.next()?, parts.next()?);
        scheme.eq_ignore_ascii_case("basic").then(|| Self {
            user: user.to_owned(),
            password: password.to_owned(),
            bearer: false,
        })
    }
}

/// Proxies, identification, certificates and where passwords are found.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Proxy for `http://`.
    pub http_proxy: Option<String>,
    /// Proxy for `https://`.
    pub https_proxy: Option<String>,
    /// Hosts that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
    /// Credentials for a proxy whose address has none.
    pub proxy_credentials: Option<Credentials>,
    /// Credentials for a server that asks for some and is not in the netrc file.
    pub credentials: Option<Credentials>,
    /// Credentials for some hosts; they come before the netrc file.
    pub hosts: Vec<HostCredentials>,
    /// A program that is called with a host and prints a name and a password, a line each; it is
    /// asked last.
    pub command: Option<PathBuf>,
    /// The netrc file.
    pub netrc: Option<PathBuf>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Referer`; `auto` is the address itself.
    pub referer: Option<String>,
    /// Local address to connect from.
    pub bind: Option<IpAddr>,
    /// The host name in a certificate is not compared.
    pub any_hostname: bool,
    /// Client certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM; `None` if it is in the same file.
    pub certificate_key: Option<PathBuf>,
    /// The only certificate authorities, PEM, if the file exists.
    pub authorities: PathBuf,
    /// Certificates that were revoked, PEM, if the file exists.
    pub revoked: PathBuf,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            proxy_credentials: None,
            credentials: None,
            hosts: Vec::new(),
            command: None,
            netrc: None,
            user_agent: None,
            referer: None,
            bind: None,
            any_hostname: false,
            certificate: None,
            certificate_key: None,
            authorities: "/etc/apk/ca.pem".into(),
            revoked: "/etc/apk/crl.pem".into(),
        }
    }
}

impl Transport {
    /// Reads the variables that apk reads; `variable` looks one up.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let either = |name: &str| set(name).or_else(|| set(&name.to_lowercase()));
        let in_home = || set("HOME").map(|home| PathBuf::from(home).join(".netrc"));
        let certificate = set("SSL_CLIENT_CERT_FILE").map(PathBuf::from);
        let apks_own = || Some(PathBuf::from("/etc/apk/cert.pem")).filter(|path| path.exists());
        let (certificate, key) = match certificate {
            Some(path) => (Some(path), set("SSL_CLIENT_KEY_FILE").map(PathBuf::from)),
            None => (
                apks_own(),
                Some(PathBuf::from("/etc/apk/cert.key")).filter(|path| path.exists()),
            ),
        };
        Self {
            http_proxy: either("HTTP_PROXY"),
            https_proxy: either("HTTPS_PROXY"),
            // apk takes spaces for commas, too.
            no_proxy: either("NO_PROXY").map(|text| {
                let words: Vec<&str> = text.split([',', ' ']).filter(|w| !w.is_empty()).collect();
                words.join(",")
            }),
            proxy_credentials: set("HTTP_PROXY_AUTH")
                .and_then(|text| Credentials::from_variable(&text)),
            credentials: set("HTTP_AUTH").and_then(|text| Credentials::from_variable(&text)),
            netrc: set("NETRC").map(PathBuf::from).or_else(in_home),
            user_agent: set("HTTP_USER_AGENT"),
            referer: set("HTTP_REFERER"),
            bind: set("FETCH_BIND_ADDRESS").and_then(|text| text.parse().ok()),
            any_hostname: set("SSL_NO_VERIFY_HOSTNAME").is_some(),
            certificate,
            certificate_key: key,
            ..Self::default()
        }
    }

    /// Returns the credentials for a host, with an optional port, and where they come from.
    pub fn credentials_for(&self, host: &str) -> Option<(Credentials, &'static str)> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        if let Some(found) = self.hosts.iter().find(|one| one.is_for(host)) {
            return Some((found.credentials.clone(), "HTTP_AUTH"));
        }
        if let Some(found) = self.netrc_credentials(name) {
            return Some((found, "netrc"));
        }
        if let Some(found) = self.credentials.clone() {
            return Some((found, "HTTP_AUTH"));
        }
        let output = std::process::Command::new(self.command.as_ref()?)
            .arg(host)
            .stdin(std::process::Stdio::null())
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut lines = text.lines();
        let (user, password) = (lines.next()?, lines.next().unwrap_or_default());
        let credentials = Credentials {
            user: user.to_owned(),
            password: password.to_owned(),
            bearer: false,
        };
        Some((credentials, "APK_AUTH_COMMAND"))
    }

    /// Returns what the netrc file says about a host.
    pub fn netrc_credentials(&self, host: &str) -> Option<Credentials> {
        let text = std::fs::read_to_string(self.netrc.as_ref()?).ok()?;
        netrc_entry(&text, host)
    }
}

/// Finds the entry of a host in the text of a netrc file, else the default entry.
fn netrc_entry(text: &str, host: &str) -> Option<Credentials> {
    let mut words = NetrcWords { rest: text };
    let mut matches = false;
    let mut found: Option<(Option<String>, Option<String>)> = None;
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if matches && found.is_some() {
                    break;
                }
                matches = word == "default" || words.next() == Some(host);
            }
            "login" if matches => {
                let login = words.next().map(str::to_owned);
                found.get_or_insert_default().0 = login;
            }
            "password" if matches => {
                let password = words.next().map(str::to_owned);
                found.get_or_insert_default().1 = password;
            }
            "login" | "password" | "account" => {
                words.next();
            }
            "macdef" => words.skip_macro(),
            _ => {}
        }
    }
    let (user, password) = found?;
    Some(Credentials {
        user: user.unwrap_or_default(),
        password: password.unwrap_or_default(),
        bearer: false,
    })
}

struct NetrcWords<'t> {
    rest: &'t str,
}

impl<'t> NetrcWords<'t> {
    fn next(&mut self) -> Option<&'t str> {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                break;
            }
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        }
        if self.rest.is_empty() {
            return None;
        }
        let end = self
            .rest
            .find(char::is_whitespace)
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word)
    }

    /// A macro ends with an empty line.
    fn skip_macro(&mut self) {
        self.rest = self.rest.split_once("\n\n").map_or("", |(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_credentials_of_their_own() {
        let text =
            "basic:a.example:me:pa:ss\nbearer:*.b.example:token\nbasic:c:81:you:it\nx:y\nbasic:z\n";
        let transport = Transport {
            hosts: HostCredentials::parse_lines(text),
            ..Transport::default()
        };
        for (host, wanted) in [
            ("a.example", Some(("me", "pa:ss", false))),
            ("a.example:8080", Some(("me", "pa:ss", false))),
            ("x.b.example", Some(("", "token", true))),
            ("b.example", None),
            ("xb.example", None),
            ("c:81", Some(("you", "it", false))),
            ("c:82", None),
            ("z", None),
        ] {
            let found = transport.credentials_for(host).map(|(found, _)| found);
            let wanted = wanted.map(|(user, password, bearer)| Credentials {
                user: user.to_owned(),
                password: password.to_owned(),
                bearer,
            });
            assert_eq!(found, wanted, "{host}");
        }
    }

    #[test]
    fn netrc_files_are_understood() {
        let text = "# a comment\nmachine a login u password p\nmacdef x\n  machine b login no\n\n\
                    machine b password q login v machine c login only\ndefault login d password e";
        for (host, user, password) in [
            ("a", "u", "p"),
            ("b", "v", "q"),
            ("c", "only", ""),
            ("other", "d", "e"),
        ] {
            let found = netrc_entry(text, host).expect(host);
            assert_eq!(
                (found.user.as_str(), found.password.as_str()),
                (user, password)
            );
        }
        assert!(netrc_entry("machine a login u password p", "b").is_none());
    }

    #[test]
    fn the_environment_is_understood() {
        let values = [
            ("http_proxy", "http://p:1"),
            ("NO_PROXY", "a, .b 10.0.0.0/8"),
            ("HTTP_AUTH", "basic:*:user:pa:ss"),
            ("HTTP_USER_AGENT", ""),
        ];
        let found = Transport::from_environment(&|name| {
            let value = values.iter().find(|(key, _)| *key == name)?.1;
            Some(value.to_owned())
        });
        assert_eq!(found.http_proxy.as_deref(), Some("http://p:1"));
        assert_eq!(found.no_proxy.as_deref(), Some("a,.b,10.0.0.0/8"));
        assert_eq!(found.user_agent, None);
        let credentials = found.credentials.expect("they were given");
        assert_eq!(credentials.password, "pa:ss");
        assert_eq!(format!("{credentials:?}"), "user:*");
    }
}

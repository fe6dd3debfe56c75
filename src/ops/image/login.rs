//! `image login`: a registry is asked whether it knows somebody, then the login is kept where
//! `publish` and other tools look for it (image.md, 11.4).
//!
//! A login that the registry refuses is not kept. Passwords are in no message.

use super::Error;
use crate::fetch::registry::{self, CredentialFiles, Reference, Registry, Stored};
use crate::ops::publish::PublishError;

/// Who, and where.
#[derive(Clone)]
pub struct Login {
    /// Host and port.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
    /// Plain HTTP may be used.
    pub insecure: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginOutcome {
    /// Where the login is now.
    pub stored: Stored,
}

/// Checks a login and keeps it.
///
/// # Errors
/// [`Error::Usage`] for what names no registry, [`Error::Publish`] if the registry refuses or does
/// not answer, [`Error::Credentials`] if the login cannot be kept.
pub fn login(login: &Login, files: &CredentialFiles) -> Result<LoginOutcome, Error> {
    let text = login.registry.trim_end_matches('/');
    let text = text.strip_prefix("https://").unwrap_or(text);
    // A registry is what may stand before the name of an image.
    let named = Reference::parse(&format!("{text}/x"));
    let good = named.is_ok_and(|reference| reference.registry == text);
    if !good {
        return Err(Error::Usage {
            message: format!(
                "\"{}\" is no registry: HOST or HOST:PORT, such as ghcr.io",
                login.registry
            ),
        });
    }
    if login.user.is_empty() || login.user.contains(':') {
        return Err(Error::Usage {
            message: "the name of a user is not empty and has no `:`".to_owned(),
        });
    }
    let known = registry::Login {
        user: login.user.clone(),
        password: login.password.clone(),
        source: "the command line".to_owned(),
    };
    Registry::check_login(text, &known, login.insecure).map_err(PublishError::Registry)?;
    let stored = files.keep(text, &known)?;
    Ok(LoginOutcome { stored })
}

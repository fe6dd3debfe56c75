//! Reading from a registry: manifests and blobs by digest, and whether a login is good.
//!
//! What was asked for by digest has that digest, or is an error.

use super::{CredentialFiles, Login, Reference, Registry, RegistryError, path};
use reqwest::{Method, RequestBuilder, StatusCode};
use sha2::{Digest, Sha256};
use std::io::Write;

/// Manifests and indexes are far smaller than this.
const LARGEST_MANIFEST: usize = 4 << 20;

/// What is understood: OCI's types and Docker's.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

impl Registry {
    /// Prepares a connection that only reads.
    ///
    /// # Errors
    /// As [`Registry::new`].
    pub fn reader(
        reference: &Reference,
        files: &CredentialFiles,
        insecure: bool,
    ) -> Result<Self, RegistryError> {
        let login = files.find(&reference.registry, &reference.repository);
        let scopes = vec![format!("repository:{}:pull", reference.repository)];
        Self::connect(reference, login, scopes, insecure)
    }

    /// Asks a registry whether it knows somebody.
    ///
    /// # Errors
    /// [`RegistryError::Denied`] if it does not, or why there is no answer.
    pub fn check_login(registry: &str, login: &Login, insecure: bool) -> Result<(), RegistryError> {
        let reference = Reference {
            registry: registry.to_owned(),
            repository: String::new(),
            tag: String::new(),
        };
        let connection = Self::connect(&reference, Some(login.clone()), Vec::new(), insecure)?;
        let url = connection.base.clone();
        connection.runtime.block_on(async {
            let answer = connection.send(Method::GET, &url, |request| request);
            let answer = answer.await?;
            match answer.status().is_success() {
                true => Ok(()),
                false => Err(connection.refused(Method::GET, &url, answer).await),
            }
        })
    }

    /// Reads a manifest or an index by its digest, and checks it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn pull_manifest(&self, digest: &str) -> Result<Vec<u8>, RegistryError> {
        let url = format!("{}/manifests/{digest}", self.base);
        let accept = |request: RequestBuilder| request.header("accept", ACCEPT);
        self.runtime.block_on(async {
            let answer = self.send(Method::GET, &url, accept).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(Method::GET, &url, answer).await);
            }
            let too_large = || RegistryError::Wrong {
                path: path(&url),
                found: "more".to_owned(),
                wanted: format!("at most {LARGEST_MANIFEST} bytes"),
            };
            let bytes = super::read(answer).await.ok_or_else(too_large)?;
            let found = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
            self.same(&url, digest, &format!("sha256:{found}"))?;
            Ok(bytes)
        })
    }

    /// Reads a blob by its digest into `out`, and checks it; more than `size` bytes are not read.
    ///
    /// # Errors
    /// [`RegistryError`]; what was written then is of no use.
    pub fn pull_blob(
        &self,
        digest: &str,
        size: u64,
        out: &mut dyn Write,
    ) -> Result<(), RegistryError> {
        let url = format!("{}/blobs/{digest}", self.base);
        self.runtime.block_on(async {
            let mut answer = self.send(Method::GET, &url, |request| request).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(Method::GET, &url, answer).await);
            }
            let mut hash = Sha256::new();
            let mut count = 0;
            let broken = |cause: String| RegistryError::NoAnswer {
                method: "GET".to_owned(),
                path: path(&url),
                cause,
            };
            while let Some(chunk) = (answer.chunk().await).map_err(|e| broken(e.to_string()))? {
                count += chunk.len() as u64;
                if count > size {
                    return Err(RegistryError::Wrong {
                        path: path(&url),
                        found: "more".to_owned(),
                        wanted: format!("{size} bytes"),
                    });
                }
                hash.update(&chunk);
                let written = out.write_all(&chunk);
                written.map_err(|error| broken(crate::root::cause(&error)))?;
            }
            let found = data_encoding::HEXLOWER.encode(&hash.finalize());
            self.same(&url, digest, &format!("sha256:{found}"))
        })
    }

    fn same(&self, url: &str, wanted: &str, found: &str) -> Result<(), RegistryError> {
        match wanted == found {
            true => Ok(()),
            false => Err(RegistryError::Wrong {
                path: path(url),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            }),
        }
    }
}

//! Repositories made for a test: packages of any content, signed with the tests' own key, and a
//! server on the loopback for them.

use super::Sandbox;
use ibex::format::package_writer::{
    self, EntryContent, EntrySpec, PackageContents, data_tar, gzip, signature_member,
};
use ibex::format::{apkindex, index_writer};
use ibex::package::{Identity, Index, Package, ScriptKind};
use ibex::trust::SigningKey;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const KEY_NAME: &str = "test-only.rsa.pub";

/// Returns the key that everything is signed with.
pub(crate) fn signing_key() -> SigningKey {
    let pem = include_bytes!("../../fixtures/test-only.rsa");
    SigningKey::from_pem(KEY_NAME, pem).expect("a key")
}

/// Makes a directory entry.
pub(crate) fn directory(path: &str) -> EntrySpec {
    EntrySpec::new(path, EntryContent::Directory)
}

/// Makes a file entry.
pub(crate) fn file(path: &str, content: impl AsRef<[u8]>) -> EntrySpec {
    EntrySpec::new(path, EntryContent::File(content.as_ref().to_vec()))
}

/// Makes a symbolic link entry.
pub(crate) fn symlink(path: &str, target: &str) -> EntrySpec {
    EntrySpec::new(path, EntryContent::Symlink(target.into()))
}

/// Makes an entry that is another name of an earlier file.
pub(crate) fn hard_link(path: &str, target: &str) -> EntrySpec {
    EntrySpec::new(path, EntryContent::HardLink(target.into()))
}

/// A package to be put into a repository.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) contents: PackageContents,
    /// The data part as a tar, if it is not made of the entries.
    tar: Option<Vec<u8>>,
    /// The whole file, if it is not made of the parts.
    bytes: Option<Vec<u8>>,
}

/// Begins a package.
pub(crate) fn package(name: &str, version: &str, entries: Vec<EntrySpec>) -> Made {
    let size: usize = entries
        .iter()
        .map(|entry| match &entry.content {
            EntryContent::File(content) => content.len(),
            _ => 0,
        })
        .sum();
    Made {
        contents: PackageContents {
            package: Package {
                name: name.into(),
                version: version.into(),
                arch: Some("x86_64".into()),
                description: format!("the package {name}"),
                license: "MIT".into(),
                origin: Some(name.into()),
                build_time: Some(1_600_000_000),
                installed_size: size.max(1) as u64,
                ..Package::default()
            },
            entries,
            ..PackageContents::default()
        },
        tar: None,
        bytes: None,
    }
}

impl Made {
    /// Changes a field of the metadata.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Package)) -> Self {
        change(&mut self.contents.package);
        self
    }

    /// Adds a script for `/bin/sh`.
    pub(crate) fn script(mut self, kind: ScriptKind, text: &str) -> Self {
        let text = format!("#!/bin/sh\n{text}\n").into_bytes();
        self.contents.scripts.insert(kind, text);
        self
    }

    /// Uses this tar as the data part.
    pub(crate) fn tar(mut self, tar: Vec<u8>) -> Self {
        self.tar = Some(tar);
        self
    }

    /// Uses these bytes as the package file.
    pub(crate) fn bytes(mut self, bytes: Vec<u8>) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Returns the package file, signed.
    pub(crate) fn build(&self) -> Vec<u8> {
        if let Some(bytes) = &self.bytes {
            return bytes.clone();
        }
        let tar = match &self.tar {
            Some(tar) => tar.clone(),
            None => data_tar(&self.contents.entries).expect("a tar"),
        };
        // What is large is there to be large; how small it gets does not matter.
        let data = match tar.len() < 1 << 20 {
            true => gzip(&tar),
            false => gzip_fast(&tar),
        };
        let hash = Sha256::digest(&data).into();
        package_writer::assemble(&self.contents, &data, hash, Some(&signing_key()))
            .expect("a package")
    }

    /// Returns the record for an index.
    fn record(&self, file: &[u8]) -> Package {
        let identity = match ibex::format::apk::PackageReader::open(file, &Default::default()) {
            Ok((control, _)) => control.identity,
            // Nothing that could be read; the index must still name it somehow.
            Err(_) => Identity([7; 20]),
        };
        Package {
            identity,
            size: file.len() as u64,
            ..self.contents.package.clone()
        }
    }
}

/// A repository in a folder.
#[derive(Debug)]
pub(crate) struct Repository {
    folder: PathBuf,
    records: Vec<Package>,
}

impl Repository {
    /// Makes an empty one beside the root, whose key the root trusts from now on.
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        Self::named(sandbox, "repository")
    }

    /// Makes one with a name of its own.
    pub(crate) fn named(sandbox: &Sandbox, name: &str) -> Self {
        let folder = sandbox.beside(name);
        fs::create_dir_all(folder.join("x86_64")).expect("a new directory");
        let public = include_bytes!("../../fixtures/test-only.rsa.pub");
        sandbox.write(&format!("etc/apk/keys/{KEY_NAME}"), public);
        Self {
            folder,
            records: Vec::new(),
        }
    }

    /// Returns the folder, which is a repository line.
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    /// Returns where a file of the repository is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join("x86_64").join(name)
    }

    /// Adds a package; the index is written by [`Repository::publish`].
    pub(crate) fn add(&mut self, made: &Made) {
        let file = made.build();
        let record = made.record(&file);
        // A name that is no file name is only in the index.
        if !record.name.contains('/') {
            let name = format!("{}.apk", record.full_name());
            fs::write(self.file(&name), &file).expect("a writable folder");
        }
        self.records.push(record);
    }

    /// Writes the index with the packages so far.
    pub(crate) fn publish(&self, made: u64) {
        let index = Index {
            description: "test".into(),
            made,
            packages: self.records.clone(),
        };
        let bytes = index_writer::write(&index, made, Some(&signing_key())).expect("an index");
        fs::write(self.file("APKINDEX.tar.gz"), bytes).expect("a writable folder");
    }

    /// Writes an index with the packages so far, and with a text after their records that nothing
    /// checked.
    pub(crate) fn publish_raw(&self, text: &str) {
        let mut records = String::new();
        for record in &self.records {
            apkindex::write_record(record, &mut records);
        }
        records.push_str(text);
        let member = gzip(&data_tar(&[file("APKINDEX", records)]).expect("a tar"));
        self.publish_member(&member);
    }

    /// Signs a gzip member and makes it the index.
    pub(crate) fn publish_member(&self, member: &[u8]) {
        let mut bytes = signature_member(&signing_key(), member).expect("a signature");
        bytes.extend_from_slice(member);
        fs::write(self.file("APKINDEX.tar.gz"), bytes).expect("a writable folder");
    }
}

/// Compresses without trying hard.
pub(crate) fn gzip_fast(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes everything");
    encoder.finish().expect("memory takes everything")
}

/// Serves a folder on the loopback until the test ends; returns the address.
pub(crate) fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut first = String::new();
            let mut line = String::new();
            let _ = reader.read_line(&mut first);
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                line.clear();
            }
            let path = first.split(' ').nth(1).unwrap_or("/");
            let (status, body) = match fs::read(folder.join(path.trim_start_matches('/'))) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let mut stream = reader.into_inner();
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    format!("http://{address}")
}

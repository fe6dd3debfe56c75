//! `mirrors`: which mirrors a root knows, how good they are, and which it prefers.
//!
//! The choice is kept in `etc/apk/mirrors.list`, the preferred one first. The repository files are
//! moved to the preferred mirror, too, so that apk has it as well.

use super::Error;
use super::database::open_root;
use super::query::{Answer, Cell, Listing};
use super::refresh::cached_index_name;
use crate::config::mirrors::{self, Mirrors, Place};
use crate::config::repositories::{self, without_credentials};
use crate::config::{RepositorySources, Settings};
use crate::fetch::measure::{Measured, measure, rank};
use crate::fetch::{IndexLoader, Rules, Session};
use crate::progress::Silent;
use crate::root::{Root, RootError};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorsCommand {
    /// Tell which there are.
    List,
    /// Measure and rank them.
    Measure,
    /// The same, and keep the ranking.
    Fastest,
    /// Keep these, in this order.
    Use(Vec<String>),
}

/// A mirror that a root knows.
#[derive(Clone, Debug)]
struct Known {
    url: String,
    /// It is kept in the list.
    kept: bool,
    /// How many repositories of the root are on it.
    repositories: usize,
}

/// Does it; `json` asks for one JSON value, `simulate` for no change.
///
/// # Errors
/// [`enum@Error`] if the root cannot be read or written, or no mirror works.
pub fn run(
    settings: &Settings,
    command: &MirrorsCommand,
    simulate: bool,
    json: bool,
) -> Result<Answer, Error> {
    let root = open_root(&settings.root, false)?;
    let work = Work {
        settings,
        root: &root,
    };
    let (known, place, arch) = work.known()?;
    match command {
        MirrorsCommand::List => Ok(list(&known, json)),
        MirrorsCommand::Measure | MirrorsCommand::Fastest => {
            let (answer, order) = work.measure(&known, &place, &arch, json)?;
            if *command == MirrorsCommand::Fastest && !order.is_empty() {
                // Who is down today may be the only one up tomorrow.
                let others = known
                    .iter()
                    .filter(|one| one.kept)
                    .map(|one| one.url.clone());
                let order = Mirrors::new(order.into_iter().chain(others));
                work.keep(order.bases(), &known, simulate)?;
            }
            Ok(answer)
        }
        MirrorsCommand::Use(urls) => {
            if let Some(wrong) = urls.iter().find(|url| !mirrors::is_address(url)) {
                return Err(refused(format!(
                    "mirrors: '{wrong}' is no address of a mirror: http://HOST/…, https://HOST/… or a \
                     path that begins with /"
                )));
            }
            if let Some(open) = urls.iter().find(|url| without_credentials(url) != **url) {
                return Err(refused(format!(
                    "mirrors: a password in '{}' would be kept where everybody can read it: put it into \
                     the netrc file",
                    without_credentials(open)
                )));
            }
            let order: Vec<String> = Mirrors::new(urls).bases().to_vec();
            work.keep(&order, &known, simulate)?;
            Ok(Answer::default())
        }
    }
}

fn refused(line: String) -> Error {
    Error::Arguments {
        lines: vec![line],
        code: 1,
    }
}

fn unreadable(error: &RootError) -> Error {
    Error::Database {
        cause: error.cause(),
    }
}

fn list(known: &[Known], json: bool) -> Answer {
    let mut text = String::new();
    let mut values = Vec::new();
    for one in known {
        let url = without_credentials(&one.url);
        let kept = if one.kept { "kept" } else { "" };
        let used = match one.repositories {
            0 => String::new(),
            1 => "1 repository".to_owned(),
            count => format!("{count} repositories"),
        };
        let notes = [kept, &used].into_iter().filter(|note| !note.is_empty());
        let notes: Vec<&str> = notes.collect();
        text += &match notes.is_empty() {
            true => format!("{url}\n"),
            false => format!("{url} ({})\n", notes.join(", ")),
        };
        values.push(json!({ "mirror": url, "kept": one.kept, "repositories": one.repositories }));
    }
    Answer::text(match json {
        true => format!("{}\n", serde_json::Value::from(values)),
        false => text,
    })
}

struct Work<'a> {
    settings: &'a Settings,
    root: &'a Root,
}

impl Work<'_> {
    /// Returns the mirrors in their order: kept or given, used by a repository, shipped with the
    /// distribution; with what to ask them for.
    fn known(&self) -> Result<(Vec<Known>, Place, String), Error> {
        let settings = self.settings;
        let mirrors = settings.mirrors(self.root).map_err(|e| unreadable(&e))?;
        let list = self.root.read(mirrors::LIST).map_err(|e| unreadable(&e))?;
        let list = list.unwrap_or_default();
        let list = String::from_utf8_lossy(&list);
        let kept = Mirrors::new(mirrors::lines(&list));
        let architectures = settings.architectures(self.root, true);
        let architectures = architectures.map_err(|e| unreadable(&e))?;
        let arch = architectures.list[0].clone();
        let places = repositories::declared_places(self.root, &settings.sources, &arch);
        let places = places.map_err(|e| unreadable(&e))?;
        let mut urls = mirrors.bases().to_vec();
        urls.extend(places.iter().map(|place| place.mirror.clone()));
        let shipped = self.root.read(mirrors::KNOWN).map_err(|e| unreadable(&e))?;
        let shipped = shipped.unwrap_or_default();
        let shipped = String::from_utf8_lossy(&shipped);
        urls.extend(mirrors::lines(&shipped).map(str::to_owned));
        let all = Mirrors::new(&urls);
        let known = all.bases().iter().map(|url| Known {
            url: url.clone(),
            kept: kept.bases().contains(url),
            repositories: places.iter().filter(|place| &place.mirror == url).count(),
        });
        let place = Place {
            mirror: String::new(),
            branch: settings
                .sources
                .branch
                .clone()
                .or_else(|| places.first().map(|place| place.branch.clone()))
                .unwrap_or_else(|| "latest-stable".to_owned()),
            component: places.first().map_or_else(
                || mirrors::COMPONENTS[0].to_owned(),
                |p| p.component.clone(),
            ),
        };
        Ok((known.collect(), place, arch))
    }

    /// Measures mirrors; returns the table and those that can be used, the best first.
    fn measure(
        &self,
        known: &[Known],
        place: &Place,
        arch: &str,
        json: bool,
    ) -> Result<(Answer, Vec<String>), Error> {
        if known.is_empty() {
            return Err(refused(
                "no mirror is known: name some with --mirror".to_owned(),
            ));
        }
        if !self.settings.network {
            return Err(refused(
                "mirrors cannot be measured without the network".to_owned(),
            ));
        }
        let keyring = self
            .settings
            .keyring(self.root)
            .map_err(|e| unreadable(&e))?;
        let rules = Rules {
            keyring: &keyring,
            allow_untrusted: self.settings.allow_untrusted,
            allow_older: true,
            depth: crate::fetch::Depth::Records,
            limits: self.settings.limits,
        };
        let mut loader = IndexLoader::new(rules, None);
        let mut check = |bytes: &[u8]| match loader.load_bytes(bytes) {
            Ok(index) => Ok(index.freshness.made.max(index.freshness.newest_build)),
            Err(error) => Err(error.to_string()),
        };
        let (branch, component) = (&place.branch, &place.component);
        let urls = known.iter().map(|one| {
            let mirror = &one.url;
            format!("{mirror}/{branch}/{component}/{arch}/APKINDEX.tar.gz")
        });
        let urls: Vec<String> = urls.collect();
        let session = Session::new(self.settings).map_err(|error| refused(error.to_string()))?;
        let measured = measure(&session, &urls, &mut check);
        let order = rank(&measured);
        let usable = order
            .iter()
            .filter(|number| measured[**number].failure.is_none());
        let usable: Vec<String> = usable.map(|number| known[*number].url.clone()).collect();
        let answer = table(known, &measured, &order, json);
        Ok((answer, usable))
    }

    /// Keeps an order, and moves the root's repository files to the first one.
    fn keep(&self, order: &[String], known: &[Known], simulate: bool) -> Result<(), Error> {
        let Some(first) = order.first() else {
            return Err(refused(
                "no mirror works; the choice stays as it was".to_owned(),
            ));
        };
        if simulate {
            return Ok(());
        }
        let before = self.indexes()?;
        let all = Mirrors::new(order.iter().chain(known.iter().map(|one| &one.url)));
        for path in repositories::files(self.root).map_err(|e| unreadable(&e))? {
            let text = self.root.read(&path).map_err(|e| unreadable(&e))?;
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            let moved = move_lines(&text, &all, first);
            if moved != text {
                self.write(&path, &moved)?;
            }
        }
        let mut text = String::new();
        for url in order {
            text += &format!("{url}\n");
        }
        self.write(mirrors::LIST, &text)?;
        let after = self.indexes()?;
        if before.len() == after.len() {
            for (from, to) in before.iter().zip(&after).filter(|(from, to)| from != to) {
                self.take_along(from, to);
            }
        }
        Ok(())
    }

    /// Returns the addresses of the indexes that the root's own files name.
    fn indexes(&self) -> Result<Vec<String>, Error> {
        let architectures = self.settings.architectures(self.root, true);
        let architectures = architectures.map_err(|e| unreadable(&e))?;
        let sources = RepositorySources::default();
        let arch = &architectures.list[0];
        let declared = repositories::load(self.root, &sources, arch, &mut Silent);
        let declared = declared.map_err(|e| unreadable(&e))?.repositories;
        let addresses = declared.into_iter();
        Ok(addresses.map(|repository| repository.index_url).collect())
    }

    /// Makes the cached index of one mirror that of another one, so that questions have an answer
    /// until the next update. It is verified whenever it is read.
    fn take_along(&self, from: &str, to: &str) {
        let Ok(Some(cache)) = self.settings.cache_directory(self.root) else {
            return;
        };
        let (from, to) = [from, to]
            .map(|url| cache.path.join(cached_index_name(url)))
            .into();
        if let (Ok(bytes), false) = (std::fs::read(from), to.exists()) {
            // Without it the next update fetches it.
            let _ = crate::fetch::cache::store(&to, &bytes);
        }
    }

    fn write(&self, path: &str, text: &str) -> Result<(), Error> {
        self.root
            .replace(path, text.as_bytes(), 0o644, false)
            .map_err(|error| refused(format!("{path}: {}; it is as before", error.cause())))
    }
}

/// Moves the addresses in a repository file to a mirror, if they are on one that is known or on
/// some branch.
fn move_lines(text: &str, known: &Mirrors, to: &str) -> String {
    let word = |word: &str| match (known.below(word), Place::of(word)) {
        (Some(rest), _) => format!("{to}{rest}"),
        (None, Some(place)) if known.bases().contains(&place.mirror) => {
            format!("{to}/{}/{}", place.branch, place.component)
        }
        _ => word.to_owned(),
    };
    text.split_inclusive('\n')
        .map(|line| match line.starts_with('#') {
            true => line.to_owned(),
            false => line
                .split_inclusive([' ', '\t', '\n'])
                .map(|part| {
                    let content = part.trim_end_matches([' ', '\t', '\n']);
                    word(content) + &part[content.len()..]
                })
                .collect(),
        })
        .collect()
}

fn table(known: &[Known], measured: &[Measured], order: &[usize], json: bool) -> Answer {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let mut text = String::new();
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for (rank, number) in order.iter().enumerate() {
        let one = &measured[*number];
        let url = without_credentials(&known[*number].url);
        let age = one.made.map(|made| now.saturating_sub(made));
        let latency = one.latency.map_or(0, |latency| latency.as_millis());
        let throughput = one.throughput.map_or("not measured".to_owned(), |rate| {
            format!("{}/s", crate::solver::human_size(rate as u64))
        });
        let index = age.map_or("not read".to_owned(), |age| format!("{} old", span(age)));
        text += &match &one.failure {
            Some(failure) => format!("  - {url}: {failure}\n"),
            None => format!(
                "{:>3} {url}: {latency} ms, {throughput}, index {index}\n",
                rank + 1
            ),
        };
        rows.push(match &one.failure {
            Some(failure) => {
                let [rank, none] = ["-", ""].map(str::to_owned);
                vec![rank, url.clone(), none.clone(), none, failure.clone()]
            }
            None => vec![
                (rank + 1).to_string(),
                url.clone(),
                format!("{latency} ms"),
                throughput,
                format!("index {index}"),
            ],
        });
        values.push(json!({
            "mirror": url,
            "latency_ms": one.latency.map(|latency| latency.as_secs_f64() * 1e3),
            "bytes_per_second": one.throughput,
            "index_age_seconds": age,
            "failure": one.failure,
        }));
    }
    let status = measured.iter().filter(|one| one.failure.is_some()).count();
    let mut answer = Answer::text(match json {
        true => format!("{}\n", serde_json::Value::from(values)),
        false => text,
    });
    answer.status = usize::from(status == measured.len());
    if !json {
        answer.listing = Listing {
            columns: &[
                Cell::Amount,
                Cell::Name,
                Cell::Amount,
                Cell::Amount,
                Cell::Text,
            ],
            rows,
        };
    }
    answer
}

fn span(seconds: u64) -> String {
    match seconds {
        0..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_lines_move_to_another_mirror() {
        let known = Mirrors::new(["http://a/alpine", "http://b"]);
        let text = "# http://b/v3.20/main\nhttp://b/v3.20/main\n@e http://a/alpine/edge/testing\n\
                    v2 http://b/v3.20 main community\nhttp://other/v3.20/main\n/local/path";
        let wanted = "# http://b/v3.20/main\nhttp://c/v3.20/main\n@e http://c/edge/testing\n\
                      v2 http://c/v3.20 main community\nhttp://other/v3.20/main\n/local/path";
        assert_eq!(move_lines(text, &known, "http://c"), wanted);
    }
}

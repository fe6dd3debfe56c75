//! Two images side by side (`diff`), and an image against what its lock file gives (`verify`).

use super::Error;
use crate::image::read::{self, ReadImage, Row, RowKind};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// How many paths of one kind are named before the rest is counted.
const NAMED: usize = 40;

/// What differs between two images of one platform.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// The platform.
    pub platform: String,
    /// Only one image has it: `first` or `second`.
    pub only_in: Option<&'static str>,
    /// Packages: name, version before, version after.
    pub packages: Vec<(String, Option<String>, Option<String>)>,
    /// Paths that came: path and bytes.
    pub added: Vec<(String, u64)>,
    /// Paths that went: path and bytes.
    pub removed: Vec<(String, u64)>,
    /// Paths that changed, and how.
    pub changed: Vec<(String, Vec<String>)>,
    /// Settings that changed: field, before, after.
    pub config: Vec<(String, String, String)>,
    /// Layers: digests before and after, by position.
    pub layers: Vec<(Option<String>, Option<String>)>,
    /// Bytes of files before and after.
    pub size: (u64, u64),
    /// Bytes of blobs before and after.
    pub stored: (u64, u64),
}

impl Difference {
    /// Returns whether the images are the same.
    pub fn is_empty(&self) -> bool {
        self.only_in.is_none()
            && self.packages.is_empty()
            && self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
            && self.config.is_empty()
            && self.layers.is_empty()
    }

    fn of(before: &ReadImage, after: &ReadImage) -> Self {
        let mut difference = Self {
            platform: before.platform.clone(),
            size: (before.size(), after.size()),
            stored: (before.stored_size(), after.stored_size()),
            ..Self::default()
        };
        let versions = |image: &ReadImage| -> BTreeMap<String, String> {
            let packages = image.installed.packages.iter().map(|one| &one.package);
            packages
                .map(|p| (p.name.clone(), p.version.clone()))
                .collect()
        };
        let (old, new) = (versions(before), versions(after));
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let (old, new) = (old.get(name), new.get(name));
            if old != new {
                difference
                    .packages
                    .push((name.clone(), old.cloned(), new.cloned()));
            }
        }
        for (path, row) in &before.files {
            match after.files.get(path) {
                None => difference.removed.push((path.clone(), row.size)),
                Some(other) => {
                    let words = row.differences(other);
                    if !words.is_empty() {
                        difference.changed.push((path.clone(), words));
                    }
                }
            }
        }
        for (path, row) in after
            .files
            .iter()
            .filter(|(path, _)| !before.files.contains_key(*path))
        {
            difference.added.push((path.clone(), row.size));
        }
        let mut settings = BTreeMap::new();
        flatten("", &before.config, 0, &mut settings);
        flatten("", &after.config, 1, &mut settings);
        for (side, image) in [before, after].into_iter().enumerate() {
            for (key, value) in &image.annotations {
                let entry: &mut [String; 2] =
                    settings.entry(format!("annotation {key}")).or_default();
                entry[side].clone_from(value);
            }
        }
        for (field, [old, new]) in settings {
            // The layers have a list of their own.
            if old != new && !field.starts_with("rootfs.") {
                difference.config.push((field, old, new));
            }
        }
        let count = before.layers.len().max(after.layers.len());
        for at in 0..count {
            let digest = |image: &ReadImage| image.layers.get(at).map(|layer| layer.digest.clone());
            let (old, new) = (digest(before), digest(after));
            if old != new {
                difference.layers.push((old, new));
            }
        }
        difference
    }
}

/// Writes the leaves of a value under their paths.
fn flatten(path: &str, value: &Value, side: usize, out: &mut BTreeMap<String, [String; 2]>) {
    let join = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                flatten(&join(key), value, side, out);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (at, value) in items.iter().enumerate() {
                flatten(&join(&at.to_string()), value, side, out);
            }
        }
        leaf => {
            let text = match leaf {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            out.entry(path.to_owned()).or_default()[side] = text;
        }
    }
}

/// Reads an image, with our words where it cannot be.
///
/// # Errors
/// [`Error::Unreadable`], or [`Error::Hash`] for a blob that was changed.
pub(super) fn read_image(path: &Path) -> Result<Vec<ReadImage>, Error> {
    read::read(path).map_err(|error| match error.mismatch() {
        Some(wrong) => Error::Hash {
            file: path.display().to_string(),
            by: "name of its blob",
            expected: wrong.expected.clone(),
            found: wrong.found.clone(),
        },
        None => Error::Unreadable {
            image: path.display().to_string(),
            cause: error.to_string(),
        },
    })
}

/// Compares two images, platform by platform; what is the same has no entry.
///
/// # Errors
/// [`Error::Unreadable`], or [`Error::Hash`] for a blob that was changed.
pub fn diff(before: &Path, after: &Path) -> Result<Vec<Difference>, Error> {
    Ok(differences(&read_image(before)?, &read_image(after)?))
}

fn differences(before: &[ReadImage], after: &[ReadImage]) -> Vec<Difference> {
    let find = |images: &[ReadImage], platform: &str| {
        images.iter().position(|image| image.platform == platform)
    };
    let platforms = before
        .iter()
        .chain(after)
        .map(|image| image.platform.as_str());
    let platforms: BTreeSet<&str> = platforms.collect();
    let mut found = Vec::new();
    for platform in platforms {
        let difference = match (find(before, platform), find(after, platform)) {
            (Some(old), Some(new)) => Difference::of(&before[old], &after[new]),
            (old, _) => Difference {
                platform: platform.to_owned(),
                only_in: Some(if old.is_some() { "first" } else { "second" }),
                ..Difference::default()
            },
        };
        if !difference.is_empty() {
            found.push(difference);
        }
    }
    found
}

/// Writes differences for people.
pub fn diff_text(differences: &[Difference]) -> String {
    let mut text = String::new();
    for one in differences {
        let _ = writeln!(text, "{}", one.platform);
        if let Some(side) = one.only_in {
            let _ = writeln!(text, "  only in the {side} image");
            continue;
        }
        let mut section = |title: &str, lines: Vec<String>| {
            if lines.is_empty() {
                return;
            }
            let _ = writeln!(text, "  {title}");
            for line in lines.iter().take(NAMED) {
                let _ = writeln!(text, "    {line}");
            }
            if lines.len() > NAMED {
                let _ = writeln!(
                    text,
                    "    and {} more (--json has all)",
                    lines.len() - NAMED
                );
            }
        };
        let package = |(name, old, new): &(String, Option<String>, Option<String>)| match (old, new)
        {
            (None, Some(new)) => format!("+ {name} {new}"),
            (Some(old), None) => format!("- {name} {old}"),
            (old, new) => format!(
                "~ {name} {} -> {}",
                old.as_deref().unwrap_or_default(),
                new.as_deref().unwrap_or_default()
            ),
        };
        section("packages", one.packages.iter().map(package).collect());
        let mut files = Vec::new();
        files.extend(
            one.removed
                .iter()
                .map(|(path, size)| format!("- {path} ({})", human(*size))),
        );
        files.extend(
            one.added
                .iter()
                .map(|(path, size)| format!("+ {path} ({})", human(*size))),
        );
        let changed =
            |(path, words): &(String, Vec<String>)| format!("~ {path}: {}", words.join(", "));
        files.extend(one.changed.iter().map(changed));
        section("files", files);
        let setting = |(field, old, new): &(String, String, String)| {
            let shown = |text: &String| match text.is_empty() {
                true => "nothing".to_owned(),
                false => text.clone(),
            };
            format!("{field}: {} -> {}", shown(old), shown(new))
        };
        section("configuration", one.config.iter().map(setting).collect());
        let short = |digest: &Option<String>| match digest {
            Some(digest) => digest.chars().take(19).collect(),
            None => "none".to_owned(),
        };
        let layer = |(old, new): &(Option<String>, Option<String>)| {
            format!("{} -> {}", short(old), short(new))
        };
        section("layers", one.layers.iter().map(layer).collect());
        let change = |(old, new): (u64, u64)| {
            let sign = if new >= old { '+' } else { '-' };
            format!(
                "{} -> {} ({sign}{})",
                human(old),
                human(new),
                human(new.abs_diff(old))
            )
        };
        let sizes = vec![
            format!("files {}", change(one.size)),
            format!("blobs {}", change(one.stored)),
        ];
        section("size", sizes);
    }
    text
}

/// Writes differences for programs.
pub fn diff_json(differences: &[Difference]) -> Value {
    let one = |one: &Difference| {
        let pairs = |list: &[(String, u64)]| -> Vec<Value> {
            list.iter()
                .map(|(path, size)| json!({ "path": path, "size": size }))
                .collect()
        };
        json!({
            "platform": one.platform,
            "only-in": one.only_in,
            "packages": one.packages.iter()
                .map(|(name, old, new)| json!({ "name": name, "before": old, "after": new }))
                .collect::<Vec<_>>(),
            "added": pairs(&one.added),
            "removed": pairs(&one.removed),
            "changed": one.changed.iter()
                .map(|(path, words)| json!({ "path": path, "differences": words }))
                .collect::<Vec<_>>(),
            "configuration": one.config.iter()
                .map(|(field, old, new)| json!({ "field": field, "before": old, "after": new }))
                .collect::<Vec<_>>(),
            "layers": one.layers.iter()
                .map(|(old, new)| json!({ "before": old, "after": new }))
                .collect::<Vec<_>>(),
            "size": { "before": one.size.0, "after": one.size.1 },
            "stored-size": { "before": one.stored.0, "after": one.stored.1 },
        })
    };
    Value::Array(differences.iter().map(one).collect())
}

/// Finds the first thing in which an image is not another one: a package, the first entry of the first
/// layer that differs, else a setting, else the bytes of a blob. Further ones follow.
///
/// # Errors
/// [`Error::Unreadable`], or [`Error::Hash`] for a blob that was changed.
pub(super) fn first_differences(wanted: &Path, found: &Path) -> Result<Vec<String>, Error> {
    let (wanted, found) = (read_image(wanted)?, read_image(found)?);
    let mut lines = Vec::new();
    for image in &wanted {
        let Some(other) = found.iter().find(|other| other.platform == image.platform) else {
            lines.push(format!("{}: the platform is missing", image.platform));
            continue;
        };
        if image.digest != other.digest {
            let before = lines.len();
            // A package explains more than its thousand files.
            let list = |image: &ReadImage| -> BTreeSet<String> {
                let packages = image.installed.packages.iter().map(|one| &one.package);
                packages
                    .map(|one| format!("{} {}", one.name, one.version))
                    .collect()
            };
            let (here, there) = (list(image), list(other));
            for name in here.difference(&there) {
                lines.push(format!("{}: package {name} is missing", image.platform));
            }
            for name in there.difference(&here) {
                lines.push(format!(
                    "{}: package {name} is not expected",
                    image.platform
                ));
            }
            entries(image, other, &mut lines);
            for (field, old, new) in Difference::of(image, other).config {
                lines.push(format!("{}: {field}: {old} -> {new}", image.platform));
            }
            if lines.len() == before {
                lines.push(format!(
                    "{}: the same content in other bytes: {} -> {}",
                    image.platform, image.digest, other.digest
                ));
            }
        }
    }
    for other in &found {
        if !wanted.iter().any(|image| image.platform == other.platform) {
            lines.push(format!("{}: the platform is not expected", other.platform));
        }
    }
    Ok(lines)
}

/// Lists what differs in the layers of two images, in the order of their archives.
fn entries(wanted: &ReadImage, found: &ReadImage, lines: &mut Vec<String>) {
    if wanted.layers.len() != found.layers.len() {
        let (a, b) = (wanted.layers.len(), found.layers.len());
        lines.push(format!("{}: {a} layers -> {b}", wanted.platform));
    }
    for (at, (layer, other)) in wanted.layers.iter().zip(&found.layers).enumerate() {
        let place = format!("{}: layer {}", wanted.platform, at + 1);
        let rows: BTreeMap<&str, &Row> = other
            .entries
            .iter()
            .map(|(p, row)| (p.as_str(), row))
            .collect();
        let mut same_order = true;
        for (number, (path, row)) in layer.entries.iter().enumerate() {
            match rows.get(path.as_str()) {
                None => lines.push(format!("{place}: {path} is missing")),
                Some(other_row) => {
                    let words = row.differences(other_row);
                    if !words.is_empty() {
                        lines.push(format!("{place}: {path}: {}", words.join(", ")));
                    }
                }
            }
            same_order &= other
                .entries
                .get(number)
                .is_some_and(|(other, _)| other == path);
        }
        let known: BTreeSet<&str> = layer
            .entries
            .iter()
            .map(|(path, _)| path.as_str())
            .collect();
        for (path, _) in other
            .entries
            .iter()
            .filter(|(path, _)| !known.contains(path.as_str()))
        {
            lines.push(format!("{place}: {path} is not expected"));
        }
        if !same_order && lines.is_empty() {
            lines.push(format!("{place}: the entries are in another order"));
        }
        if layer.media_type != other.media_type && !other.media_type.is_empty() {
            lines.push(format!(
                "{place}: {} -> {}",
                layer.media_type, other.media_type
            ));
        }
    }
}

/// Writes bytes for people.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// What takes the space of an image.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The platform.
    pub platform: String,
    /// Bytes of all files.
    pub total: u64,
    /// Bytes of the blobs.
    pub stored: u64,
    /// Layers: digest, bytes of the blob, bytes of the files in it.
    pub layers: Vec<(String, u64, u64)>,
    /// Packages: name, version, bytes, files; what no package has is under an empty name.
    pub packages: Vec<(String, String, u64, usize)>,
    /// Every file: path, owner, bytes.
    pub files: Vec<(String, String, u64)>,
}

/// Measures an image.
///
/// # Errors
/// [`Error::Unreadable`], or [`Error::Hash`] for a blob that was changed.
pub fn sizes(path: &Path) -> Result<Vec<Sizes>, Error> {
    Ok(read_image(path)?.iter().map(Sizes::of).collect())
}

impl Sizes {
    fn of(image: &ReadImage) -> Self {
        let owners = image.owners();
        let mut packages: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
        for one in &image.installed.packages {
            packages.entry(&one.package.name).or_default();
        }
        let mut files = Vec::new();
        for (path, row) in &image.files {
            if matches!(row.kind, RowKind::Directory) {
                continue;
            }
            let owner = owners.get(path).copied().unwrap_or_default();
            let entry = packages.entry(owner).or_default();
            entry.0 += row.size;
            entry.1 += 1;
            files.push((path.clone(), owner.to_owned(), row.size));
        }
        let version = |name: &str| {
            let found = image
                .installed
                .packages
                .iter()
                .find(|one| one.package.name == name);
            found.map_or_else(String::new, |one| one.package.version.clone())
        };
        let rows = packages.into_iter();
        let mut packages: Vec<(String, String, u64, usize)> = rows
            .map(|(name, (size, count))| (name.to_owned(), version(name), size, count))
            .collect();
        packages.sort_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(&b.0)));
        Self {
            platform: image.platform.clone(),
            total: image.size(),
            stored: image.stored_size(),
            layers: (image.layers.iter())
                .map(|layer| {
                    let plain = layer.entries.iter().map(|(_, row)| row.size).sum();
                    (layer.digest.clone(), layer.size, plain)
                })
                .collect(),
            packages,
            files,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "platform": self.platform,
            "size": self.total,
            "stored-size": self.stored,
            "layers": self.layers.iter()
                .map(|(digest, stored, plain)| json!({ "digest": digest, "stored-size": stored, "size": plain }))
                .collect::<Vec<_>>(),
            "packages": self.packages.iter()
                .map(|(name, version, size, files)| {
                    json!({ "name": name, "version": version, "size": size, "files": files })
                })
                .collect::<Vec<_>>(),
        })
    }
}

/// Writes sizes for programs.
pub fn sizes_json(sizes: &[Sizes]) -> Value {
    Value::Array(sizes.iter().map(Sizes::to_json).collect())
}

/// Writes sizes as tables.
pub fn sizes_text(sizes: &[Sizes]) -> String {
    let mut text = String::new();
    for one in sizes {
        let (total, stored) = (human(one.total), human(one.stored));
        let _ = writeln!(
            text,
            "{}: {total} in files, {stored} in blobs",
            one.platform
        );
        let width = one
            .packages
            .iter()
            .map(|row| row.0.len() + row.1.len() + 1)
            .max();
        let width = width.unwrap_or(0).max("(no package)".len());
        let _ = writeln!(
            text,
            "  {:>10}  {:>5}  {:<width$}  {:>6}",
            "size", "share", "package", "files"
        );
        for (name, version, size, files) in &one.packages {
            let share = match one.total {
                0 => 0.0,
                total => *size as f64 * 100.0 / total as f64,
            };
            let name = match name.as_str() {
                "" => "(no package)".to_owned(),
                name => format!("{name} {version}"),
            };
            let _ = writeln!(
                text,
                "  {:>10}  {share:>4.1}%  {name:<width$}  {files:>6}",
                human(*size)
            );
        }
        if one.layers.len() > 1 {
            let _ = writeln!(text, "  layers");
            for (digest, stored, plain) in &one.layers {
                let digest: String = digest.chars().take(19).collect();
                let _ = writeln!(
                    text,
                    "  {:>10}  {digest}  {} stored",
                    human(*plain),
                    human(*stored)
                );
            }
        }
    }
    text
}

/// Writes a page that draws where the space goes, by package and by directory; it needs no other
/// file.
pub fn sizes_html(title: &str, sizes: &[Sizes]) -> String {
    let images = sizes.iter().map(|one| {
        json!({
            "platform": one.platform,
            "total": one.total,
            "stored": one.stored,
            "packages": one.packages.iter()
                .map(|(name, version, size, files)| json!([name, version, size, files]))
                .collect::<Vec<_>>(),
            "files": one.files.iter()
                .filter(|(_, _, size)| *size > 0)
                .map(|(path, owner, size)| json!([path, owner, size]))
                .collect::<Vec<_>>(),
        })
    });
    let data = json!({ "title": title, "images": images.collect::<Vec<_>>() });
    // Inside of a script nothing may look like its end.
    let data = data
        .to_string()
        .replace('<', "\\u003c")
        .replace('\u{2028}', "\\u2028");
    let data = data.replace('\u{2029}', "\\u2029");
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    include_str!("size.html")
        .replace("@TITLE@", &title)
        .replace("@DATA@", &data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        for (bytes, wanted) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
        ] {
            assert_eq!(human(bytes), wanted);
        }
    }

    #[test]
    fn names_cannot_leave_the_script() {
        let sizes = Sizes {
            platform: "</script><script>alert(1)".to_owned(),
            total: 1,
            stored: 1,
            layers: Vec::new(),
            packages: Vec::new(),
            files: vec![("</script>".to_owned(), String::new(), 1)],
        };
        let page = sizes_html("<b>&", &[sizes]);
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("<title>&lt;b>&amp;"), "the title is escaped");
    }
}

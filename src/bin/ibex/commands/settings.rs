//! From global options and the environment to the library's settings.

use crate::args::Invocation;
use ibex::config::{RepositorySources, Settings, Transport};
use ibex::format::Limits;
use std::path::PathBuf;

/// Returns the settings that an invocation asks for.
pub(crate) fn settings(invocation: &Invocation) -> Settings {
    let values = &invocation.values;
    let path = |id: &str| values.last(id).map(PathBuf::from);
    let max_age = if values.is("update-cache") {
        0
    } else {
        values.number("cache-max-age").unwrap_or(240)
    };
    Settings {
        root: path("root").unwrap_or_else(|| "/".into()),
        root_given: values.last("root").is_some_and(|root| root != "/"),
        arch: values.all("arch"),
        keys_dir: path("keys-dir"),
        sources: RepositorySources {
            repositories: values.all("repository"),
            config: values.all("repository-config"),
            file: path("repositories-file"),
            only_arguments: false,
            replaced: std::collections::BTreeMap::new(),
            mirrors: values.all("mirror"),
            branch: values.last("branch").map(str::to_owned),
            components: values.all("component"),
        },
        allow_untrusted: values.is("allow-untrusted"),
        network: values.choice("network").unwrap_or(true),
        cache: values.choice("cache").unwrap_or(true),
        cache_dir: path("cache-dir"),
        cache_packages: values
            .choice("cache-packages")
            .or_else(|| values.is("cache-predownload").then_some(true)),
        cache_max_age: max_age,
        force_refresh: values.is("force-refresh"),
        force_index_rollback: values.is("force-index-rollback"),
        limits: limits(invocation),
        check_certificate: values.choice("check-certificate").unwrap_or(true),
        timeout: values.number("timeout").unwrap_or(60),
        transport: Transport::from_environment(&|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        }),
        root_tmpfs: values.choice("root-tmpfs"),
        store_limit: values
            .last("cache-limit")
            .and_then(ibex::format::parse_size)
            .unwrap_or(Settings::default().store_limit),
        catalogue_dir: catalogue_directory(),
    }
}

/// Returns the limits with what `--limits` moves; the words were checked when they were parsed.
fn limits(invocation: &Invocation) -> Limits {
    let mut limits = Limits::default();
    for list in invocation.values.all("limits") {
        let checked = limits.set(&list);
        debug_assert!(checked.is_ok(), "the command line checks it");
    }
    limits
}

/// Returns where parsed indexes and packages are kept: `$IBEX_CACHE_DIR`, `/var/cache/ibex` for root, else the
/// user's cache directory.
pub(super) fn catalogue_directory() -> Option<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(directory) = variable("IBEX_CACHE_DIR") {
        return Some(directory);
    }
    if rustix::process::geteuid().is_root() {
        return Some("/var/cache/ibex".into());
    }
    variable("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("ibex"))
}

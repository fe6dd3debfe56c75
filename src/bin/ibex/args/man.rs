//! Manual pages, made of the definitions by way of clap.

use super::help;
use super::image::{SUBCOMMANDS, Subcommand};
use super::options::APPLETS;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Returns every page as the name of its file and its text.
pub(crate) fn pages() -> Vec<(String, Vec<u8>)> {
    let mut pages = vec![("ibex.1".to_owned(), overview())];
    for applet in APPLETS.iter().filter(|applet| !applet.planned) {
        let command = help::applet_command("ibex", applet);
        let name = format!("ibex-{}", applet.name);
        let synopsis = format!("{} [OPTION]... {}", applet.name, applet.arguments);
        let mut also = vec!["ibex".to_owned()];
        if applet.name == "image" {
            also.extend(SUBCOMMANDS.iter().map(image_page_name));
        }
        pages.push((
            format!("{name}.1"),
            page(command, &name, applet.about, &synopsis, &also, Exits::Apk),
        ));
    }
    for one in SUBCOMMANDS {
        let name = image_page_name(one);
        let synopsis = format!(
            "image {} [OPTION]... {}",
            one.applet.name, one.applet.arguments
        );
        let also = ["ibex".to_owned(), "ibex-image".to_owned()];
        let command = help::subcommand_command("ibex", one);
        pages.push((
            format!("{name}.1"),
            page(
                command,
                &name,
                one.applet.about,
                &synopsis,
                &also,
                Exits::Image,
            ),
        ));
    }
    pages
}

fn image_page_name(one: &Subcommand) -> String {
    format!("ibex-image-{}", one.applet.name)
}

/// What a page says of exit codes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exits {
    /// Those of apk, and the list of commands.
    Overview,
    /// Those of apk.
    Apk,
    /// Those of `image`.
    Image,
}

fn overview() -> Vec<u8> {
    let about = "package manager for Alpine Linux packages, roots and images";
    let applets = APPLETS.iter().filter(|applet| !applet.planned);
    let also: Vec<String> = applets
        .map(|applet| format!("ibex-{}", applet.name))
        .collect();
    let synopsis = "[OPTION]... COMMAND [OPTION]... [ARGUMENT]...";
    page(
        help::overview_command("ibex"),
        "ibex",
        about,
        synopsis,
        &also,
        Exits::Overview,
    )
}

fn page(
    command: clap::Command,
    name: &str,
    about: &str,
    synopsis: &str,
    also: &[String],
    exits: Exits,
) -> Vec<u8> {
    let version = concat!("ibex ", env!("CARGO_PKG_VERSION"));
    // No date: the same program writes the same pages.
    let title = format!(".TH {} 1 \"\" \"{version}\"\n", name.to_uppercase());
    let mut out = title.into_bytes();
    let man = Man::new(command);
    let mut head = Roff::new();
    head.control("SH", ["NAME"]);
    head.text([roman(format!("{name} - {}", about.trim_end_matches('.')))]);
    head.control("SH", ["SYNOPSIS"]);
    head.text([bold("ibex"), roman(format!(" {}", synopsis.trim_end()))]);
    let mut tail = Roff::new();
    if exits == Exits::Overview {
        tail.control("SH", ["COMMANDS"]);
        for applet in APPLETS.iter().filter(|applet| !applet.planned) {
            tail.control("TP", []);
            tail.text([bold(applet.name), roman(format!(" {}", applet.arguments))]);
            tail.text([roman(applet.about)]);
        }
    }
    if name == "ibex-image" {
        tail.control("SH", ["SUBCOMMANDS"]);
        for one in SUBCOMMANDS {
            tail.control("TP", []);
            tail.text([
                bold(one.applet.name),
                roman(format!(" {}", one.applet.arguments)),
            ]);
            tail.text([roman(one.applet.about)]);
        }
    }
    tail.control("SH", ["EXIT STATUS"]);
    tail.text([roman(match exits {
        Exits::Image => {
            "0 if everything was done; 1 if it failed; 2 for a wrong description or command line; \
             3 if a check did not hold; 4 if there is no solution; 5 if a signature or hash is \
             wrong; 6 if access was refused; 130 if it was interrupted."
        }
        _ => {
            "0 if everything was done; 1 for a wrong command line; 99 if nothing could be done; \
             otherwise the number of things that failed, at most 99."
        }
    })]);
    tail.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in [
        (
            "REGISTRY_AUTH_FILE, DOCKER_CONFIG",
            "Where logins to image registries are.",
        ),
        (
            "APK_CONFIG",
            "Configuration file with one long option a line.",
        ),
        ("IBEX_CACHE_DIR", "Where parsed indexes are kept."),
        ("NO_COLOR", "If set and not empty, nothing is coloured."),
        ("http_proxy, https_proxy, no_proxy", "Proxies."),
        ("SOURCE_DATE_EPOCH", "The time that written indexes carry."),
    ] {
        tail.control("TP", []);
        tail.text([bold(variable)]);
        tail.text([roman(meaning)]);
    }
    tail.control("SH", ["SEE ALSO"]);
    let also: Vec<String> = also.iter().map(|page| format!("{page}(1)")).collect();
    tail.text([roman(also.join(", "))]);
    // Writing into memory does not fail.
    let written = head
        .to_writer(&mut out)
        .and_then(|()| man.render_options_section(&mut out))
        .and_then(|()| tail.to_writer(&mut out));
    written.expect("a Vec takes everything");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages();
        assert!(pages.len() > 40);
        assert!(pages.iter().any(|(name, _)| name == "ibex-image-build.1"));
        for (name, page) in pages {
            let text = String::from_utf8(page).expect("pages are text");
            for part in [
                ".TH",
                ".SH NAME",
                ".SH SYNOPSIS",
                "OPTIONS",
                ".SH \"SEE ALSO\"",
            ] {
                assert!(text.contains(part), "{name} lacks {part}:\n{text}");
            }
        }
    }
}

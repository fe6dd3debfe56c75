//! Help and version texts, rendered by clap from the definitions.

use super::options::{APPLETS, Applet, GLOBAL, Opt, Takes};
use clap::{Arg, ArgAction, Command};

/// The version of apk whose behaviour this program has.
const COMPATIBLE: &str = "3.0.6";

/// Returns the line of `--version`.
pub(crate) fn version(called: &str) -> String {
    let (own, arch) = (env!("CARGO_PKG_VERSION"), ibex::config::ARCH);
    if called.starts_with("apk") {
        format!("apk-tools {COMPATIBLE} (ibex {own}), compiled for {arch}.\n")
    } else {
        format!("ibex {own} (compatible with apk-tools {COMPATIBLE}), compiled for {arch}.\n")
    }
}

/// Returns the overview of all commands.
pub(crate) fn overview(called: &str) -> String {
    text(called, None)
}

/// Returns the help of an applet, or the overview.
pub(crate) fn text(called: &str, applet: Option<&Applet>) -> String {
    let name = if called.is_empty() { "ibex" } else { called };
    let mut command = match applet {
        Some(applet) => applet_command(name, applet),
        None => overview_command(name),
    };
    format!("{}\n{}", version(called), command.render_long_help())
}

/// Returns the overview of the subcommands of `image`.
pub(crate) fn image_overview(called: &str) -> String {
    let subcommands = super::image::SUBCOMMANDS.iter().map(|one| {
        let about = one.applet.about.to_owned();
        Command::new(one.applet.name).about(about)
    });
    let mut command = base(format!("{called} image"))
        .about("Build container images from packages")
        .override_usage(format!(
            "{called} image SUBCOMMAND [OPTION]... [ARGUMENT]..."
        ))
        .subcommands(subcommands)
        .args(arguments(super::image::COMMON, "Options"));
    format!("{}\n{}", version(called), command.render_long_help())
}

/// Returns the help of a subcommand of `image`.
pub(crate) fn subcommand(called: &str, one: &super::image::Subcommand) -> String {
    let mut command = subcommand_command(called, one);
    format!("{}\n{}", version(called), command.render_long_help())
}

pub(super) fn subcommand_command(called: &str, one: &super::image::Subcommand) -> Command {
    let applet = &one.applet;
    let usage = format!(
        "{called} image {} [OPTION]... {}",
        applet.name, applet.arguments
    );
    let mut seen = Seen::default();
    let mut own = seen.unclaimed(applet.options);
    for group in one.groups {
        own.extend(seen.unclaimed(group));
    }
    base(format!("{called} image {}", applet.name))
        .about(applet.about)
        .override_usage(usage.trim_end().to_owned())
        .args(arguments(&own, "Options"))
        .args(arguments(
            &seen.unclaimed(super::image::COMMON),
            "Options of all subcommands",
        ))
}

pub(super) fn overview_command(name: &str) -> Command {
    let commands = APPLETS.iter().map(|applet| {
        let about = if applet.planned {
            format!("{} (not implemented yet)", applet.about)
        } else {
            applet.about.to_owned()
        };
        Command::new(applet.name).about(about)
    });
    base(name.to_owned())
        .override_usage(format!(
            "{name} [OPTION]... COMMAND [OPTION]... [ARGUMENT]..."
        ))
        .subcommands(commands)
        .args(arguments(GLOBAL, "Global options"))
}

pub(super) fn applet_command(name: &str, applet: &Applet) -> Command {
    let usage = format!("{name} {} [OPTION]... {}", applet.name, applet.arguments);
    let mut command = base(format!("{name} {}", applet.name))
        .about(applet.about)
        .override_usage(usage.trim_end().to_owned());
    // Lookup order decides which option a name or letter means; the others do not show it.
    let mut seen = Seen::default();
    let global = seen.unclaimed(GLOBAL);
    command = command.args(arguments(&seen.unclaimed(applet.options), "Options"));
    for group in applet.groups {
        let heading = match group {
            super::options::Group::Commit => "Options of commands that change a root",
            super::options::Group::Query => "Options of commands that select packages",
            super::options::Group::Generation => "Options of commands that write v3 files",
        };
        command = command.args(arguments(&seen.unclaimed(group.options()), heading));
    }
    command.args(arguments(&global, "Global options"))
}

/// The names and letters that have a meaning already.
#[derive(Default)]
struct Seen {
    long: Vec<&'static str>,
    short: Vec<char>,
}

impl Seen {
    /// Returns the options without the names and letters that mean something else.
    fn unclaimed(&mut self, options: &[Opt]) -> Vec<Opt> {
        let mut left = Vec::new();
        for mut option in options
            .iter()
            .copied()
            .filter(|option| !option.help.is_empty())
        {
            if self.long.contains(&option.long) {
                option.long = "";
            }
            option.short = option.short.filter(|letter| !self.short.contains(letter));
            if option.long.is_empty() && option.short.is_none() {
                continue;
            }
            self.long
                .extend((!option.long.is_empty()).then_some(option.long));
            self.short.extend(option.short);
            left.push(option);
        }
        left
    }
}

fn base(name: String) -> Command {
    Command::new(name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
}

fn arguments(options: &[Opt], heading: &'static str) -> Vec<Arg> {
    let visible = options.iter().filter(|option| !option.help.is_empty());
    visible
        .enumerate()
        .map(|(at, option)| {
            let mut argument = Arg::new(format!("{heading} {at}"))
                .help(option.help)
                .help_heading(heading);
            if !option.long.is_empty() {
                argument = argument.long(option.long);
            }
            // A letter that an applet uses for itself is not the group's there.
            if let Some(letter) = option.short {
                argument = argument.short(letter);
            }
            match option.takes {
                Takes::Nothing => argument.action(ArgAction::SetTrue),
                Takes::Bool => argument
                    .value_name("yes|no")
                    .num_args(0..=1)
                    .require_equals(true),
                Takes::Auto => argument
                    .value_name("yes|no|auto")
                    .num_args(0..=1)
                    .require_equals(true),
                Takes::Value(name) | Takes::Number(name) => argument.value_name(name),
                Takes::List(name) => argument.value_name(name).action(ArgAction::Append),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_applet_has_a_help_text() {
        for applet in APPLETS {
            let text = text("ibex", Some(applet));
            assert!(text.contains(applet.about), "{text}");
            assert!(text.contains("--root"), "{text}");
        }
        assert!(overview("apk").contains("upgrade"));
    }
}

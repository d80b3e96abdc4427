//! `docs/settings.md` agrees with the definitions. With `UPDATE_DOCS=1` the test writes what it otherwise compares.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use super::*;
use crate::cli::command_line;

const TABLE_BEGINS: &str = "<!-- settings: written by a test -->\n";
const TABLE_ENDS: &str = "<!-- end -->\n";

/// The commands that take a setting as an option; `config` takes all.
fn commands(key: &str) -> String {
    let mut command_line = command_line();
    command_line.build();
    let takes = |command: &&Command| command.get_arguments().any(|option| option.get_id() == key);
    let names = command_line.get_subcommands().filter(takes).map(Command::get_name);
    let names: Vec<&str> = names.filter(|name| *name != "config").collect();
    let with_settings = command_line.get_subcommands().filter(|command| {
        command.get_name() != "config" && command.get_arguments().any(|option| option.get_id() == "config")
    });
    if names.len() == with_settings.count() { "all".to_owned() } else { names.join(", ") }
}

fn row(table: &mut String, setting: &Arg) {
    let key = setting.get_id().as_str();
    let is_flag = !setting.get_action().takes_values();
    let variables = [Some(variable(key)), setting.get_env().map(|name| name.to_string_lossy().into_owned())];
    let variables = variables.into_iter().flatten().chain(python::names(key).map(str::to_owned));
    let variables: Vec<_> = variables.map(|name| format!("`{name}`")).collect();
    let names: Vec<String> =
        setting.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let value = match setting.get_value_names() {
        _ if is_flag => "`true`, `false`".to_owned(),
        _ if !names.is_empty() => names.join(", "),
        Some(names) => names.join(" ").replace('|', " or "),
        None => "–".to_owned(),
    };
    let default = setting.get_default_values().first().filter(|text| !text.is_empty());
    let default = match default {
        _ if is_flag => "`false`".to_owned(),
        Some(default) => {
            format!("`{}`", default.to_string_lossy().replace(env!("CARGO_PKG_VERSION"), "VERSION"))
        }
        None => "–".to_owned(),
    };
    let help = setting.get_help().unwrap().to_string().replace('|', "\\|");
    let (option, variables, commands) = (option(key), variables.join(", "), commands(key));
    writeln!(table, "| `{key}` | `{option}` | {variables} | {value} | {default} | {commands} | {help} |")
        .unwrap();
}

#[test]
fn docs_list_every_setting() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    if !path.parent().unwrap().exists() {
        return; // the published package has no docs
    }
    let mut table =
        "| Key | Option | Variable | Value | Default | Commands | Meaning |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for setting in Settings::augment_args(Command::new("collector")).get_arguments() {
        row(&mut table, setting);
    }
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(TABLE_BEGINS).unwrap();
    let (_, after) = rest.split_once(TABLE_ENDS).unwrap();
    let expected = format!("{before}{TABLE_BEGINS}{table}{TABLE_ENDS}{after}");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let hint = "`UPDATE_DOCS=1 cargo test -p polisen-events-collector --lib cli::settings::` writes it";
    assert!(fs::read_to_string(&path).unwrap() == expected, "docs/settings.md differs; {hint}");
}

#[test]
fn command_line_is_consistent() {
    command_line().debug_assert();
    definition().debug_assert();
}

/// Every default is a valid value, as it is written in the help.
#[test]
fn defaults_are_valid_values() {
    let definition = definition();
    let values = definition.get_arguments().map(|setting| {
        let text = setting.get_default_values().first().map(|text| text.to_string_lossy().into_owned());
        let key = setting.get_id().to_string();
        Value { origin: Origin::Option(option(&key)), key, text: text.unwrap_or_default() }
    });
    let settings = Settings::new(&values.collect::<Vec<_>>()).unwrap();
    assert_eq!(settings.feed_options(), {
        let mut expected = FeedOptions::new(settings.state.state_dir.clone());
        expected.instance = "./data".to_owned();
        expected
    });
    assert_eq!(settings.health.limits(), Limits::default());
    assert_eq!(format!("{:?}", settings.archive_options()), format!("{:?}", ArchiveOptions::default()));
}

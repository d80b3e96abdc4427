//! Options, variables, the file; what is said of wrong usage.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::Value;

use crate::support::{Ended, Home, fixture};

fn value(config: &Value, key: &str) -> (String, String) {
    let text = |field: &str| config[key][field].as_str().unwrap().to_owned();
    (text("value"), text("source"))
}

/// AWS-LC measures the jitter of the clock otherwise, which takes longer than the rest of a run.
#[test]
fn crypto_library_collects_no_jitter_entropy() {
    let program = fs::read(env!("CARGO_BIN_EXE_collector")).unwrap();
    let symbol = b"jent_read_entropy";
    assert!(!program.windows(symbol.len()).any(|window| window == symbol), "see .cargo/config.toml");
}

/// journald knows its readers by the file that stderr is, and strips `<priority>`.
#[test]
fn the_journal_is_told_how_much_a_line_matters_and_notes_the_time_itself() {
    let home = Home::new();
    let log = |format: &str, is_journal: bool| {
        let file = fs::File::create(home.path("stderr")).unwrap();
        let metadata = file.metadata().unwrap();
        let inode = if is_journal { metadata.ino() } else { metadata.ino() + 1 };
        // No server listens there: a warning about the retry, and an error.
        let feed = ["run", "--feed", "http://127.0.0.1:1/", "--retries", "1", "--retry-backoff", "1ms"];
        let mut command = home.command(&[&feed[..], &["--log-format", format]].concat());
        command.env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev())).stderr(file);
        assert_eq!(command.status().unwrap().code(), Some(1));
        fs::read_to_string(home.path("stderr")).unwrap()
    };
    for format in ["text", "json"] {
        let text = log(format, true);
        assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
        assert!(text.lines().any(|line| line.starts_with("<4>")), "{text}");
        assert!(!text.contains("<4>20"), "the time stands there twice: {text}");
        assert!(text.lines().last().unwrap().starts_with("<3>error: "), "{text}");
        assert!(!log(format, false).contains("<4>"));
    }
}

#[test]
fn an_option_beats_a_variable_and_a_variable_beats_the_file() {
    let home = Home::new();
    home.write("c.toml", "timeout = \"7s\"\nretries = 1\nbuffer_size = 9\n");
    let mut command = home.command(&["config", "--json", "--config", "c.toml", "--timeout", "5s"]);
    command.env("COLLECTOR_TIMEOUT", "6s").env("COLLECTOR_RETRIES", "2");
    let config = Ended::from(command.output().unwrap()).with(0).json();
    let expected = [
        ("timeout", "5s", "--timeout"),
        ("retries", "2", "$COLLECTOR_RETRIES"),
        ("buffer_size", "9", "c.toml"),
        ("idle_timeout", "10s", "default"),
    ];
    for (key, text, source) in expected {
        assert_eq!(value(&config, key), (text.to_owned(), source.to_owned()));
    }
}

#[test]
fn variables_of_the_documented_collector_are_understood() {
    let home = Home::new();
    let mut command = home.command(&["config", "--json"]);
    command
        .env("POLISEN_API_URL", "https://example.org/events")
        .env("API_USER_AGENT", "mine/1")
        .env("API_CONTACT_EMAIL", "me@example.org")
        .env("OCI_NAMESPACE", "ns")
        .env("OCI_BUCKET_NAME", "bucket");
    let config = Ended::from(command.output().unwrap()).with(0).json();
    assert_eq!(value(&config, "feed").0, "https://example.org/events");
    assert_eq!(value(&config, "user_agent").0, "mine/1");
    assert_eq!(value(&config, "contact").0, "me@example.org");
    assert_eq!(value(&config, "store").0, "oci://ns/bucket");
}

#[test]
fn documented_default_bucket_is_used_where_only_the_namespace_is_set() {
    let home = Home::new();
    let config = config_with(&home, &[("OCI_NAMESPACE", "ns")]).with(0).json();
    let store = ("oci://ns/polisen-events-collector".to_owned(), "$OCI_NAMESPACE".to_owned());
    assert_eq!(value(&config, "store"), store);
}

fn config_with(home: &Home, variables: &[(&str, &str)]) -> Ended {
    let mut command = home.command(&["config", "--json"]);
    Ended::from(command.envs(variables.iter().copied()).output().unwrap())
}

/// Variables of the Python collectors, and what `collector config` makes of them.
#[test]
fn variables_of_the_original_collector_are_translated() {
    let home = Home::new();
    let variables = [
        ("LOG_LEVEL", "WARNING"),
        ("POLLING_INTERVAL_MINUTES", "15"),
        ("USE_INSTANCE_PRINCIPAL", "true"),
        ("OCI_VAULT_REGION", "eu-frankfurt-1"),
        ("USE_VAULT", "false"),
        ("OCI_REGION", "eu-stockholm-1"),
    ];
    let config = config_with(&home, &variables).with(0).json();
    for (key, text, variable) in [
        ("log_level", "warn", "$LOG_LEVEL"),
        ("interval", "15m", "$POLLING_INTERVAL_MINUTES"),
        ("auth", "instance", "$USE_INSTANCE_PRINCIPAL"),
        ("vault_endpoint", "https://secrets.vaults.eu-frankfurt-1.oci.oraclecloud.com/", "$OCI_VAULT_REGION"),
        ("region", "eu-stockholm-1", "$OCI_REGION"),
    ] {
        assert_eq!(value(&config, key), (text.to_owned(), variable.to_owned()), "{key}");
    }
}

#[test]
fn variable_that_cannot_be_understood_is_refused_with_what_replaces_it() {
    let home = Home::new();
    let bucket = ("OCI_NAMESPACE", "ns");
    for (variable, text, replacement) in [
        ("USE_VAULT", "true", "COLLECTOR_SECRET_USER"),
        ("VAULT_SECRET_ID", "ocid1.vaultsecret.oc1..x", "COLLECTOR_SECRET_USER"),
        ("POLL_INTERVAL", "1800", "COLLECTOR_INTERVAL"),
        ("POLLING_INTERVAL_MINUTES", "often", "minutes"),
        ("LOG_LEVEL", "LOUD", "INFO"),
        ("OCI_VAULT_REGION", "Frankfurt", "eu-frankfurt-1"),
    ] {
        let error = config_with(&home, &[bucket, (variable, text)]).with(2).error_line().to_owned();
        assert!(error.contains(&format!("${variable}")) && error.contains(replacement), "{error}");
    }
    let error = config_with(&home, &[("OCI_BUCKET_NAME", "events")]).with(2).error_line().to_owned();
    assert!(error.contains("$OCI_BUCKET_NAME") && error.contains("OCI_NAMESPACE"), "{error}");
    config_with(&home, &[("OCI_BUCKET_NAME", "events"), ("COLLECTOR_STORE", "./data")]).with(0);
    // Events are stored elsewhere, so that no secret is needed.
    config_with(&home, &[bucket, ("USE_VAULT", "true"), ("COLLECTOR_STORE", "./data")]).with(0);
    let secret = "ocid1.vaultsecret.oc1..x";
    let secrets =
        ["USER", "TENANCY", "FINGERPRINT", "PRIVATE_KEY"].map(|name| format!("COLLECTOR_SECRET_{name}"));
    let mut variables = vec![bucket, ("USE_VAULT", "true")];
    variables.extend(secrets.iter().map(|name| (name.as_str(), secret)));
    config_with(&home, &variables).with(0);
}

#[test]
fn variables_without_effect_are_named() {
    let home = Home::new();
    let feed = fixture("response.json");
    let mut command = home.command(&["run", "--feed", feed.to_str().unwrap()]);
    command.env("OCI_COMPARTMENT_ID", "ocid1.compartment.oc1..x").env("LOG_DIR", "./logs");
    let ended = Ended::from(command.output().unwrap()).with(0);
    for (variable, level) in [("OCI_COMPARTMENT_ID", " INFO "), ("LOG_DIR", " WARN ")] {
        let line = ended.stderr.lines().find(|line| line.contains(&format!("variable={variable:?}")));
        let line = line.unwrap_or_else(|| panic!("{variable} is ignored silently: {}", ended.stderr));
        assert!(line.contains(level), "{line}");
    }
}

#[test]
fn env_file_is_read_and_variables_that_are_set_keep_their_values() {
    let home = Home::new();
    home.write(
        ".env",
        "OCI_NAMESPACE=ns # mine\nexport COLLECTOR_RETRIES=\"7\"\nAPI_CONTACT_EMAIL='me@example.org'\n",
    );
    let mut command = home.command(&["config", "--json", "--env-file", ".env"]);
    let config = Ended::from(command.env("COLLECTOR_RETRIES", "2").output().unwrap()).with(0).json();
    assert_eq!(value(&config, "store").0, "oci://ns/polisen-events-collector");
    assert_eq!(value(&config, "contact").0, "me@example.org");
    assert_eq!(value(&config, "retries").0, "2");
    let config = config_with(&home, &[("COLLECTOR_ENV_FILE", ".env")]).with(0).json();
    assert_eq!(value(&config, "retries").0, "7");
    home.write("bad.env", "A=1\nOCI_NAMESPACE\n");
    let refused = home.collector(&["config", "--env-file", "bad.env"]).with(2);
    assert!(refused.error_line().contains("bad.env:2"), "{}", refused.stderr);
    let missing = home.collector(&["config", "--env-file", "none"]).with(2);
    assert!(missing.error_line().contains("cannot read none"), "{}", missing.stderr);
}

#[test]
fn unknown_variable_is_reported_and_a_near_miss_is_refused() {
    let home = Home::new();
    for near in ["COLLECTOR_STOER", "COLLECTOR_STOR", "COLLECTOR_STORES", "COLLECTOR_CONFG"] {
        let error = config_with(&home, &[(near, "x")]).with(2).error_line().to_owned();
        assert!(error.contains(near) && error.contains("did you mean COLLECTOR_"), "{error}");
    }
    let ended = config_with(&home, &[("COLLECTOR_HEALTH_PATH", "x")]).with(0);
    assert!(ended.stderr.contains("COLLECTOR_HEALTH_PATH"), "{}", ended.stderr);
    let injected =
        [("COLLECTOR_SERVICE_HOST", "10.0.0.1"), ("COLLECTOR_PORT_9464_TCP", "tcp://10.0.0.1:9464")];
    assert_eq!(config_with(&home, &injected).with(0).stderr, "");
}

#[test]
fn tilde_is_the_home_folder_or_refused() {
    let home = Home::new();
    let config = config_with(&home, &[("HOME", "/home/me"), ("COLLECTOR_STORE", "~/data")]).with(0).json();
    assert_eq!(value(&config, "store").0, "/home/me/data");
    home.write("c.toml", "metrics_dir = \"~\"\n");
    let config = config_with(&home, &[("HOME", "/home/me"), ("COLLECTOR_CONFIG", "c.toml")]).with(0).json();
    assert_eq!(value(&config, "metrics_dir").0, "/home/me");
    let refused = config_with(&home, &[("COLLECTOR_HEALTH_FILE", "~other/h.json")]).with(2);
    assert!(refused.error_line().contains("health_file: `~other/h.json`"), "{}", refused.stderr);
    config_with(&home, &[("HOME", ""), ("COLLECTOR_STATE_DIR", "~/state")]).with(2);
}

#[test]
fn password_in_an_address_of_a_store_is_hidden() {
    let home = Home::new();
    let endpoint = ["--endpoint", "https://user:topsecret@127.0.0.1:9"];
    let shown = home.collector(&[&["config", "--store", "s3://b"], &endpoint[..]].concat()).with(2);
    assert!(shown.stderr.contains("https://***@127.0.0.1:9"), "{}", shown.stderr);
    let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let mut command = home.command(&[&["verify", "--store", "s3://b"], &endpoint[..]].concat());
    let refused = Ended::from(command.envs(keys).output().unwrap()).with(2);
    assert!(refused.error_line().contains("would end up in logs"), "{}", refused.stderr);
    let mut all = vec![shown, refused];
    for address in ["s3://user:topsecret@b", "s3://user:to psecret@b", "https://user:topsecret@h/b"] {
        for arguments in [&["run", "--store"][..], &["run", "--mirror-to"], &["mirror", "--to"]] {
            all.push(home.collector(&[arguments, &[address]].concat()).with(2));
        }
    }
    for key in ["endpoint", "vault_endpoint", "auth_endpoint", "metadata_url", "peer_endpoint", "feed"] {
        home.write("c.toml", format!("{key} = \"https://user:to psecret@127.0.0.1:9\"\n"));
        all.push(home.collector(&["config", "--config", "c.toml"]).with(2));
    }
    for ended in all {
        let printed = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!printed.contains("psecret"), "{printed}");
    }
}

#[test]
fn every_setting_is_listed_with_its_source() {
    let home = Home::new();
    let listed = home.collector(&["config"]).with(0).stdout;
    for key in ["feed", "store", "metrics_dir", "health_file", "timeout", "state_dir"] {
        let line = listed.lines().find(|line| line.starts_with(key)).unwrap();
        assert!(line.ends_with("default"), "{line}");
    }
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_is_wrong() {
    let home = Home::new();
    let cases: [(&[&str], &str); 22] = [
        (&[], "Usage"),
        (&["collect"], "unrecognized subcommand"),
        (&["run", "--fed", "x"], "--feed"),
        (&["run", "--feed", "http://polisen.se/api/events"], "use https"),
        (&["run", "--feed", "ftp://polisen.se/"], "not a supported scheme"),
        (&["run", "--feed", "https://"], "not a valid address"),
        (&["run", "--timeout", "soon"], "--timeout: `soon`: not a time"),
        (&["run", "--timeout", "0s"], "must be more than nothing"),
        (&["run", "--retries=-1"], "not a whole number"),
        (&["run", "--config", "absent.toml"], "absent.toml"),
        (&["run", "--store", "ftp://x/y"], "not supported"),
        (&["import"], "PATH"),
        (&["import", "absent"], "cannot read absent"),
        (&["health", "--max-age-minutes=-3"], "must not be negative"),
        (&["tables", "--from", "2026-02-01", "--to", "2026-01-31"], "is after --to"),
        (&["mirror", "--to", ""], "a folder or an address is missing"),
        (&["mirror", "--to", "data/replica"], "--to: one of the two stores is inside the other"),
        (&["run", "--mirror-to", "."], "--mirror-to: `.`: one of the two stores is inside the other"),
        (&["run", "--metrics-dir", "data/events/x"], "--metrics-dir: `data/events/x`: it is inside"),
        (&["run", "--health-file", "data/../data/metadata/h.json"], "it is inside a folder of the archive"),
        (&["tables", "--tables", "data/rejected"], "it is inside a folder of the archive"),
        (&["query", "--json", "--format", "csv"], "cannot be used with"),
    ];
    for (arguments, said) in cases {
        let ended = home.collector(arguments).with(2);
        assert!(ended.stderr.contains(said), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
    assert!(home.store().is_empty());
    assert!(home.records().is_empty());
}

#[test]
fn an_unknown_key_of_the_file_is_an_error_with_a_hint() {
    let home = Home::new();
    home.write("c.toml", "metrics-dir = \"m\"\n");
    let ended = home.collector(&["run", "--config", "c.toml"]).with(2);
    assert!(ended.error_line().contains("did you mean `metrics_dir`?"), "{}", ended.stderr);
    for broken in ["timeout = [1]", "timeout =", "\"aåå\" = 1"] {
        home.write("c.toml", broken);
        home.collector(&["config", "--config", "c.toml"]).with(2).error_line();
    }
}

#[test]
fn credentials_in_the_address_of_the_feed_are_never_printed() {
    let home = Home::new();
    let addresses = [
        "https://user:hunter2@example.org/",
        "user:hunter2@example.org/x",
        "user:hunter2@example.org",
        "http://127.0.0.1:1/x?api_key=hunter2",
        "http://127.0.0.1:1/x?a=b&X-Amz-Signature=hunter2",
    ];
    for address in addresses {
        let limits = ["--retries", "0", "--log-level", "debug"];
        let ended = home.collector(&[&["run", "--feed", address], &limits[..]].concat());
        assert_ne!(ended.code, Some(0), "{address}");
        let mut command = home.command(&["config"]);
        let shown = Ended::from(command.env("COLLECTOR_FEED", address).output().unwrap());
        for ended in [ended, shown] {
            let printed = format!("{}{}", ended.stdout, ended.stderr);
            assert!(!printed.contains("hunter2"), "{address}: {printed}");
        }
    }
    let records: String = home.records().iter().map(ToString::to_string).collect();
    assert!(records.contains("127.0.0.1") && !records.contains("hunter2"), "{records}");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.collector(&["completions", shell]).with(0).stdout;
        assert!(script.contains("metrics-dir"), "{shell}");
    }
    let page = home.collector(&["man"]).with(0).stdout;
    for command in ["run", "import", "health", "verify", "repair", "config"] {
        assert!(page.contains(&format!("collector\\-{command}")), "{command}");
    }
}

#[test]
fn version_is_one_line_with_v_and_names_commit_and_features_in_full() {
    let home = Home::new();
    for program in [env!("CARGO_BIN_EXE_collector"), env!("CARGO_BIN_EXE_analyze-metrics")] {
        let print = |option| {
            let ended = Ended::from(home.program(program).arg(option).output().unwrap()).with(0);
            ended.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (short, long) = (print("-V"), print("--version"));
        assert!(short.len() == 1 && short[0].ends_with(env!("CARGO_PKG_VERSION")), "{short:?}");
        assert_eq!(long[0], short[0]);
        assert!(long[1].starts_with("commit: "), "{long:?}");
        for feature in ["cli", "oci", "s3", "watch"] {
            let listed = long[2].strip_prefix("features: ").unwrap().split(", ").any(|it| it == feature);
            assert!(listed, "{feature}: {long:?}");
        }
        assert!(!long[2].contains("default"), "{long:?}");
    }
}

/// A screen has 50 lines. The short help leaves out what is rarely used.
#[test]
fn help_is_short_with_h_and_complete_with_help() {
    let home = Home::new();
    let commands = [
        "run", "watch", "import", "query", "changes", "fetch", "cache", "health", "verify", "repair",
        "doctor", "config",
    ];
    for command in commands {
        let [short, long] = ["-h", "--help"].map(|option| home.collector(&[command, option]).with(0).stdout);
        assert!(short.lines().count() <= 50, "{command}: {short}");
        assert!(long.lines().count() <= 100, "{command}: {long}");
        assert!(!short.contains("--secret-user") && !short.contains("--cache-dir"), "{command}: {short}");
        assert_eq!(
            long.contains("--secret-user"),
            !["fetch", "health"].contains(&command),
            "{command}: {long}"
        );
    }
}

#[test]
fn invalid_value_is_reported_with_its_origin() {
    let home = Home::new();
    home.write("c.toml", "# A comment.\ncontact = \"me\"\nretries = \"few\"\n");
    let refused = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = home.command(&[&["config"], arguments].concat());
        let ended = Ended::from(command.envs(variables.iter().copied()).output().unwrap()).with(2);
        ended.error_line().to_owned()
    };
    let reason = "`few`: not a whole number, or too large";
    assert_eq!(refused(&["--config", "c.toml"], &[]), format!("error: c.toml:3: retries: {reason}"));
    assert_eq!(refused(&["--retries", "few"], &[]), format!("error: --retries: {reason}"));
    let variable = ("COLLECTOR_RETRIES", "few");
    assert_eq!(refused(&["--config", "c.toml"], &[variable]), format!("error: $COLLECTOR_RETRIES: {reason}"));
    let words = refused(&[], &[("COLLECTOR_AUTH", "password")]);
    assert_eq!(words, "error: $COLLECTOR_AUTH: `password`: not one of api-key, instance");
    home.write("c.toml", "timeout = \"5s\"\nretries =\n");
    assert!(refused(&["--config", "c.toml"], &[]).starts_with("error: c.toml:2: invalid TOML: "));
    home.write("c.toml", "timeout = \"5s\"\n\n[cache]\nsize = 1\n");
    assert_eq!(
        refused(&["--config", "c.toml"], &[]),
        "error: c.toml:3: no setting is called `cache`; did you mean `cache_dir`?"
    );
}

#[test]
fn variables_of_oci_are_not_meant_for_s3() {
    let home = Home::new();
    for (store, region) in [("oci://ns/b", "eu-stockholm-1"), ("s3://b", "")] {
        let variables =
            [("COLLECTOR_STORE", store), ("OCI_REGION", "eu-stockholm-1"), ("OCI_BUCKET_NAME", "other")];
        assert_eq!(value(&config_with(&home, &variables).with(0).json(), "region").0, region, "{store}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let home = Home::new();
    let mut child = home.command(&["man"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn recordings_are_imported_in_the_order_of_their_seconds() {
    let home = Home::new();
    for (second, name) in [(1_767_355_200, "response.json"), (1_767_366_000, "response-next.json")] {
        home.write(&format!("polls/{second}.json"), fs::read(fixture(name)).unwrap());
    }
    home.write("polls/1767370000.json", "<html>");
    home.write("polls/notes.txt", "not a response");
    let summary = home.collector(&["import", "--json", "polls"]).with(1).json();
    assert_eq!((&summary["responses"], &summary["failed"]), (&3.into(), &1.into()));
    assert_eq!(summary["events_new"], home.lines("events").len());
    assert_eq!(summary["revisions"], 1);
    assert!(summary["elapsed_s"].is_number());
    home.collector(&["verify"]).with(0);
    let before = home.objects();
    let again = home.collector(&["import", "--json", "polls"]).with(1).json();
    assert_eq!(again["events_new"], 0);
    assert_eq!(home.objects(), before);
}

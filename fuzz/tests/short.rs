//! The short run: the corpus, with the regressions, and a fixed number of mutations for each target.

use fuzz::batch::{self, End};
use fuzz::{corpus, targets};

#[test]
fn no_target_is_violated() {
    let violated: Vec<String> = targets::all()
        .into_iter()
        .filter_map(|target| match batch::run(target, 1, End::Inputs(target.short_run), None) {
            Ok(Ok(_)) => None,
            Ok(Err(violation)) => {
                let input = violation.input.escape_ascii();
                Some(format!("{}: {}\n  input: b\"{input}\"", target.name, violation.reason))
            }
            Err(error) => Some(format!("{}: no corpus: {error}", target.name)),
        })
        .collect();
    assert!(violated.is_empty(), "{}", violated.join("\n"));
}

#[test]
fn each_folder_of_the_corpus_has_a_target() {
    let folders = std::fs::read_dir(corpus::folder("")).unwrap();
    for folder in folders {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(targets::named(&name).is_some(), "{name}");
    }
}

#[test]
fn the_same_seed_makes_the_same_inputs() {
    let target = targets::named("python_json").unwrap();
    let run = || batch::run(target, 7, End::Inputs(2_000), None).unwrap().unwrap();
    let (one, another) = (run(), run());
    assert_eq!(
        (one.inputs, one.kinds, one.max_peak_bytes),
        (another.inputs, another.kinds, another.max_peak_bytes)
    );
}
